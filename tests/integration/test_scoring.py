import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from finetune import scoring
from finetune.scoring import (
    OptionScorer,
    TokenTree,
    encode,
    encode_options,
    generate,
    plan_batches,
    plan_packs,
    takes_trees,
)
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
    assert max(n for item in items for n in item.n_scored) > 5  # options of several tokens
    expected = [
        [naive_log_likelihood(model, tokenizer, prompt, option) for option in options]
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]
    spread = max(map(max, expected)) - min(map(min, expected))
    assert spread > 5
    for scores, naive in zip(OptionScorer(model)(items), expected, strict=True):
        assert scores == pytest.approx(naive, abs=1e-4)


def test_log_likelihoods_do_not_depend_on_the_batch(model, tokenizer):
    items = [encode_options(tokenizer, *pair) for pair in zip(PROMPTS, OPTIONS, strict=True)]
    together = OptionScorer(model)(items)
    for item, scores in zip(items, together, strict=True):
        assert OptionScorer(model)([item])[0] == pytest.approx(scores, abs=1e-4)
    assert OptionScorer(model)(items[::-1])[::-1] == [pytest.approx(s, abs=1e-4) for s in together]


def test_options_of_one_token_need_one_pass(model, tokenizer):
    items = [encode_options(tokenizer, prompt, ("7", "z")) for prompt in PROMPTS]
    assert {n for item in items for n in item.n_scored} == {1}
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    scores = OptionScorer(model)(items)
    handle.remove()
    assert len(passes) == 1
    assert scores[0][1] == pytest.approx(naive_log_likelihood(model, tokenizer, PROMPTS[0], "z"), abs=1e-4)


def test_an_option_that_merges_with_the_prompt(model, tokenizer):
    # "capita" + "l" is one token where "capita" alone is others: the merged token counts as the option's.
    prompt, options = "Name the capita", ("l", "z")
    alone = encode(tokenizer, prompt)
    assert encode(tokenizer, prompt + "l")[: len(alone)] != alone
    item = encode_options(tokenizer, prompt, options)
    assert item.n_given[0] < item.n_given[1] == len(alone)
    expected = [naive_log_likelihood(model, tokenizer, prompt, option) for option in options]
    assert OptionScorer(model)([item])[0] == pytest.approx(expected, abs=1e-4)


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


def test_prompts_that_begin_alike_give_the_same_scores_and_compute_the_beginning_once(model, tokenizer):
    shared = PROMPTS[2]
    items = [encode_options(tokenizer, f"{shared} {word}: ", ("yes", "no way", "no")) for word in "abcdefghij"]
    packs = plan_packs(items, max_tokens=60)
    assert len(packs) > 2
    fed = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: fed.append(given["input_ids"].numel()), with_kwargs=True
    )
    scorer = OptionScorer(model)
    scores = {}
    for pack, following in zip(packs, [*packs[1:], []], strict=True):
        found = scorer([items[i] for i in pack], [items[i] for i in following])
        scores |= dict(zip(pack, found, strict=True))
    handle.remove()
    n_shared = len(encode(tokenizer, shared))
    assert n_shared > 50
    assert sum(fed) < n_shared + sum(item.n_tokens - n_shared + 12 for item in items)
    for i, word in enumerate("abcdefghij"):
        naive = [naive_log_likelihood(model, tokenizer, f"{shared} {word}: ", o) for o in ("yes", "no way", "no")]
        assert scores[i] == pytest.approx(naive, abs=1e-4)


def test_a_shared_beginning_is_forgotten_when_others_come(model, tokenizer):
    groups = [[f"{start * 12} {word}: " for word in "abcd"] for start in ("Name the capital. ", "Translate it. ")]
    items = [encode_options(tokenizer, prompt, ("yes", "no")) for group in groups for prompt in group]
    scorer = OptionScorer(model)
    for pack, following in (
        (items[:2], items[2:4]),
        (items[2:6], items[6:8]),
        (items[6:8], []),
        (items[:1], items[1:2]),
    ):
        assert scorer(pack, following) == [pytest.approx(OptionScorer(model)([item])[0], abs=1e-4) for item in pack]


def test_a_tree_holds_every_beginning_once():
    tree = TokenTree([[1, 2, 3], [1, 2, 4, 5], [1, 6]], n_root=1)
    assert tree.tokens == [2, 3, 4, 5, 6]
    assert tree.positions == [1, 2, 2, 3, 1]
    assert tree.paths == [[0, 1], [0, 2, 3], [4]]
    assert tree.visible().astype(int).tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]


def test_a_model_with_a_sliding_window_is_scored_without_a_tree(tokenizer):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8, initializer_range=0.5,
    )  # fmt: skip
    windowed = MistralForCausalLM(config).eval()
    assert not takes_trees(windowed)
    item = encode_options(tokenizer, PROMPTS[2], ("yes", "no way"))
    expected = [naive_log_likelihood(windowed, tokenizer, PROMPTS[2], option) for option in ("yes", "no way")]
    assert OptionScorer(windowed)([item])[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("pack_tokens", [1000, 12])
def test_what_prompts_begin_with_alike_is_computed_once(model, tokenizer, monkeypatch, pack_tokens):
    texts = [f"{PROMPTS[2]} {word}" for word in ("a", "the capital", "of it", "of it all", "the capital")]
    prompts = [encode(tokenizer, text) for text in (*texts, PROMPTS[0], PROMPTS[2])]
    alone = [generate(model, [prompt], max_new_tokens=8, eos_ids=())[0] for prompt in prompts]
    monkeypatch.setattr(scoring, "CPU_PACK_TOKENS", pack_tokens)
    fed = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: fed.append(given["input_ids"].shape), with_kwargs=True
    )
    answers = generate(model, prompts, max_new_tokens=8, eos_ids=())
    handle.remove()
    assert answers == alone
    passes = [shape for shape in fed if shape[0] == 1]
    assert len(fed) - len(passes) == 7
    assert (len(passes) > 2) == (pack_tokens == 12)
    assert sum(n_tokens for _, n_tokens in passes) < sum(map(len, prompts)) / 2


def test_batches_hold_similar_lengths_within_the_budget():
    sizes = [10, 100, 9, 30, 500, 99]
    batches = plan_batches(sizes, max_tokens=300)
    assert batches == [[4], [1, 5, 3], [0, 2]]
    assert plan_batches([], 100) == []
    for batch in batches[1:]:
        assert len(batch) * max(sizes[i] for i in batch) <= 300
