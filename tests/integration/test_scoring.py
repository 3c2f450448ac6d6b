import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.scoring import encode, encode_options, generate, option_log_likelihoods, plan_batches
from selfinstruct.errors import UsageError
from tests.tiny import build_tiny_llama

PROMPTS = (
    "<|im_start|>user\nIs this review positive or negative?\n\nFine.<|im_end|>\n<|im_start|>assistant\n",
    "Name the capital of the country.\nAnswer: ",
    "### Instruction:\nTranslate the sentence. " * 9 + "### Response:",
)
OPTIONS = (("positive", "negative", "n"), ("Paris", "P", " Paris is the capital of the country"), ("yes", "no"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    # The weights of a fresh model give almost uniform predictions, which would hide errors of position or padding.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def naive_log_likelihood(model, tokenizer, prompt, option):
    """One full forward pass, without cache, padding or batch."""
    alone = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = tokenizer(prompt + option, add_special_tokens=False).input_ids
    start = 0
    while start < min(len(alone), len(ids)) and alone[start] == ids[start]:
        start += 1
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return sum(log_probs[position - 1, ids[position]].item() for position in range(start, len(ids)))


def test_log_likelihoods_equal_a_full_forward_of_each_option(model, tokenizer):
    items = [encode_options(tokenizer, *pair) for pair in zip(PROMPTS, OPTIONS, strict=True)]
    assert max(len(c) for item in items for c in item.continuations) > 5  # options of several tokens
    expected = [
        [naive_log_likelihood(model, tokenizer, prompt, option) for option in options]
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]
    spread = max(map(max, expected)) - min(map(min, expected))
    assert spread > 5
    for scores, naive in zip(option_log_likelihoods(model, items), expected, strict=True):
        assert scores == pytest.approx(naive, abs=1e-4)


def test_log_likelihoods_do_not_depend_on_the_batch(model, tokenizer):
    items = [encode_options(tokenizer, *pair) for pair in zip(PROMPTS, OPTIONS, strict=True)]
    together = option_log_likelihoods(model, items)
    for item, scores in zip(items, together, strict=True):
        assert option_log_likelihoods(model, [item])[0] == pytest.approx(scores, abs=1e-4)
    assert option_log_likelihoods(model, items[::-1])[::-1] == [pytest.approx(s, abs=1e-4) for s in together]


def test_options_of_one_token_need_one_pass(model, tokenizer):
    items = [encode_options(tokenizer, prompt, ("7", "z")) for prompt in PROMPTS]
    assert {len(c) for item in items for c in item.continuations} == {1}
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    scores = option_log_likelihoods(model, items)
    handle.remove()
    assert len(passes) == 1
    assert scores[0][1] == pytest.approx(naive_log_likelihood(model, tokenizer, PROMPTS[0], "z"), abs=1e-4)


def test_an_option_that_merges_with_the_prompt(model, tokenizer):
    # "capita" + "l" is one token where "capita" alone is others: the merged token counts as the option's.
    prompt, options = "Name the capita", ("l", "z")
    alone = encode(tokenizer, prompt)
    assert encode(tokenizer, prompt + "l")[: len(alone)] != alone
    item = encode_options(tokenizer, prompt, options)
    assert len(item.context) < len(alone)
    assert item.n_given[0] == 0
    assert item.n_given[1] == len(alone) - len(item.context) > 0
    expected = [naive_log_likelihood(model, tokenizer, prompt, option) for option in options]
    assert option_log_likelihoods(model, [item])[0] == pytest.approx(expected, abs=1e-4)


def test_what_adds_no_token_has_no_log_likelihood(tokenizer):
    with pytest.raises(UsageError, match="option '' adds no token"):
        encode_options(tokenizer, "Is it?", ("yes", ""))
    with pytest.raises(UsageError, match="prompt '' has no token"):
        encode_options(tokenizer, "", ("yes", "no"))


@pytest.mark.parametrize("max_new_tokens", [1, 24])
def test_greedy_answers_equal_those_of_transformers(model, tokenizer, max_new_tokens):
    prompts = [encode(tokenizer, prompt) for prompt in PROMPTS]
    # Any token may end an answer here, so that some end early and leave the batch while others go on.
    free = generate(model, prompts, max_new_tokens=24, eos_ids=())
    eos_ids = {free[0][3], free[1][9]}
    answers = generate(model, prompts, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=max_new_tokens, eos_token_id=sorted(eos_ids), pad_token_id=0,
        )[0, len(prompt):].tolist()  # fmt: skip
        assert answer == expected
    if max_new_tokens == 24:
        assert len({len(answer) for answer in answers}) > 1
        assert answers[0][-1] in eos_ids


def test_answers_do_not_depend_on_the_batch(model, tokenizer):
    prompts = [encode(tokenizer, prompt) for prompt in PROMPTS]
    together = generate(model, prompts, max_new_tokens=16, eos_ids=())
    assert [generate(model, [prompt], max_new_tokens=16, eos_ids=())[0] for prompt in prompts] == together


def test_batches_hold_similar_lengths_within_the_budget():
    sizes = [(1, 10), (2, 100), (1, 9), (4, 30), (1, 500), (1, 99)]
    batches = plan_batches(sizes, max_tokens=300)
    assert batches == [[4], [1, 5], [3, 0, 2]]
    assert plan_batches([], 100) == []
    for batch in batches[1:]:
        assert sum(sizes[i][0] for i in batch) * max(sizes[i][1] for i in batch) <= 300
