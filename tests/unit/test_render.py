from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.errors import InputError, UsageError
from selfinstruct.render import AlpacaRenderer, ChatRenderer, joined, renderer_for
from tests.tiny import CHAT_TEMPLATE, build_tiny_llama

END = "<|im_end|>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {
        "plain": build_tiny_llama(root / "plain"),
        "bos": build_tiny_llama(root / "bos", bos=True, chat_template="{{ bos_token }}" + CHAT_TEMPLATE),
    }


@pytest.fixture
def tokenizer(folders: dict[str, Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folders["plain"])


@pytest.fixture
def bos_tokenizer(folders: dict[str, Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folders["bos"])


def chat(tokenizer: Any, template: str) -> Any:
    tokenizer.chat_template = template
    return renderer_for(tokenizer, "chat")


# -- Alpaca ------------------------------------------------------------------------------------------------------------


def test_alpaca_templates_to_the_letter():
    renderer = AlpacaRenderer(bos="", eos="</s>")
    assert renderer.prompt("Add.", "1 and 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Add.\n"
        "\n"
        "### Input:\n"
        "1 and 2\n"
        "\n"
        "### Response:"
    )
    assert renderer.prompt("Name a river.", "") == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Name a river.\n"
        "\n"
        "### Response:"
    )
    assert renderer.completion("Name a river.", "", "Elbe") == "Elbe</s>"


def test_braces_in_a_text_stay():
    renderer = AlpacaRenderer(bos="<s>", eos="</s>")
    prompt = renderer.prompt("Fill {input} and {{x}}.", "{instruction} {0} {")
    assert "### Instruction:\nFill {input} and {{x}}.\n" in prompt
    assert "### Input:\n{instruction} {0} {\n" in prompt
    assert prompt.startswith("<s>Below")
    assert renderer.completion("", "", "{}") == "{}</s>"


def test_alpaca_of_a_tokenizer_gives_one_bos(tokenizer, bos_tokenizer):
    assert renderer_for(tokenizer, "alpaca").prompt("a", "").startswith("Below")
    text = renderer_for(bos_tokenizer, "alpaca").prompt("a", "")
    ids = bos_tokenizer(text, add_special_tokens=False).input_ids
    assert ids == bos_tokenizer(text.removeprefix("<s>")).input_ids
    assert ids.count(bos_tokenizer.bos_token_id) == 1
    completion = renderer_for(tokenizer, "alpaca").completion("a", "", "Elbe")
    assert tokenizer(completion, add_special_tokens=False).input_ids[-1] == tokenizer.eos_token_id


# -- chat --------------------------------------------------------------------------------------------------------------


def test_chat_is_the_models_own_template(tokenizer):
    renderer = renderer_for(tokenizer, "chat")
    assert renderer.prompt("Add.", "1, 2") == "<|im_start|>user\nAdd.\n\n1, 2<|im_end|>\n<|im_start|>assistant\n"
    assert renderer.prompt("Add.", "") == "<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n"
    # Not the line feed that the template writes after the turn: it is never generated.
    assert renderer.completion("Add.", "1, 2", "3") == "3<|im_end|>"
    assert renderer_for(tokenizer, "auto").sha256 == renderer.sha256


def test_prompt_and_completion_are_the_template_applied_to_both_turns(tokenizer):
    renderer = renderer_for(tokenizer, "chat")
    messages = [
        {"role": "user", "content": joined("{{ 7 * 7 }}", "{%")},
        {"role": "assistant", "content": " é\n{# x #}"},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert (
        whole == renderer.prompt("{{ 7 * 7 }}", "{%") + renderer.completion("{{ 7 * 7 }}", "{%", " é\n{# x #}") + "\n"
    )


def test_chat_gives_one_bos(bos_tokenizer):
    renderer = renderer_for(bos_tokenizer, "chat")
    text = renderer.prompt("Add.", "") + renderer.completion("Add.", "", "3")
    ids = bos_tokenizer(text, add_special_tokens=False).input_ids
    assert ids[0] == bos_tokenizer.bos_token_id
    assert ids.count(bos_tokenizer.bos_token_id) == 1
    assert ids.count(bos_tokenizer.eos_token_id) == 2  # the end of each turn


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("{{ m.content }}<|im_end|>\n", "3<|im_end|>"),
        ("{{ m.content }}<|im_end|><|im_end|>", "3<|im_end|>"),
        ("{{ m.content | trim }} <|im_end|>", "3 <|im_end|>"),
        ("{{ m.content }}", "3<|im_end|>"),  # without an end of turn the end of the text is it
        ("{{ m.content }}</turn>\n", "3</turn>\n<|im_end|>"),
    ],
)
def test_completion_ends_with_one_end_of_sequence(tokenizer, answer, completion):
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}U {{ m.content }}\nA {% else %}"
        + answer
        + "{% endif %}{% endfor %}"
    )
    renderer = chat(tokenizer, template)
    assert renderer.prompt("Add.", "") == "U Add.\nA "
    assert renderer.completion("Add.", "", "3") == completion


@pytest.mark.parametrize("output", [f"Say {END}", f"{END} ends a turn", END, "", " \n", "user", "assistant"])
def test_answer_is_never_cut(tokenizer, output):
    assert renderer_for(tokenizer, "chat").completion("Add.", "", output) == f"{output}<|im_end|>"


def test_template_that_changes_the_prompt_is_refused(tokenizer):
    # As templates do that show a hint only while an answer is wanted.
    template = "{% if add_generation_prompt %}Answer briefly.\n{% endif %}" + CHAT_TEMPLATE
    renderer = chat(tokenizer, template)
    assert renderer.prompt("Add.", "").startswith("Answer briefly.")
    with pytest.raises(UsageError, match=r"changes the prompt .* use --template alpaca"):
        renderer.completion("Add.", "", "3")


@pytest.mark.parametrize("template", ["{{ raise_exception('no such role') }}", "{% for %}", "{{ 1 / nothing }}"])
def test_template_that_fails_is_named(tokenizer, template):
    with pytest.raises(UsageError, match=r"the chat template fails .* use --template alpaca"):
        chat(tokenizer, template).prompt("Add.", "")


def test_text_does_not_change_from_day_to_day(tokenizer):
    renderer = chat(tokenizer, "Today is {{ strftime_now('%d %B %Y') }}.\n" + CHAT_TEMPLATE)
    assert renderer.prompt("Add.", "").startswith("Today is 26 July 2024.\n<|im_start|>")
    assert renderer.completion("Add.", "", "3") == "3<|im_end|>"


def test_tokenizer_without_what_is_needed_is_refused(tokenizer):
    tokenizer.chat_template = None
    for template in ("chat", "auto"):
        with pytest.raises(UsageError, match="has no chat template; use --template alpaca"):
            renderer_for(tokenizer, template)
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        renderer_for(tokenizer, "alpaca")


# -- files and conversations -----------------------------------------------------------------------------------------


def test_a_template_file_is_a_chat_template_that_the_tokenizer_keeps(tokenizer, tmp_path):
    model = renderer_for(tokenizer, "chat")
    path = tmp_path / "own.jinja"
    path.write_text(tokenizer.chat_template)
    assert renderer_for(tokenizer, str(path)).sha256 == model.sha256
    path.write_text(CHAT_TEMPLATE.replace("<|im_start|>", "# "))
    own = renderer_for(tokenizer, str(path))
    assert own.prompt("Add.", "1") == "# user\nAdd.\n\n1<|im_end|>\n# assistant\n"
    assert own.name == "chat"
    assert own.sha256 != model.sha256
    assert tokenizer.chat_template == path.read_text()
    assert renderer_for(tokenizer, "chat").sha256 == own.sha256  # so it is found again beside an adapter


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "own.jinja:1: fails as a chat template"),
        ("a\n{{ 'x' }\n", "own.jinja:2: fails as a chat template"),
        ("{{ 1 / 0 }}", "own.jinja: fails as a chat template (division by zero)"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "own.jinja: fails as a chat template"),
        ("", "own.jinja: does not write what the user says"),
        ("{{ messages[0]['content'] }}A: ", "own.jinja: does not write what the assistant says"),
        ("{{ add_generation_prompt }}" + CHAT_TEMPLATE, "own.jinja: the chat template changes the prompt"),
    ],
)
def test_a_template_file_that_cannot_be_used_is_named(tokenizer, tmp_path, template, message):
    before = tokenizer.chat_template
    (tmp_path / "own.jinja").write_text(template)
    with pytest.raises(InputError, match=re.escape(message)):
        renderer_for(tokenizer, str(tmp_path / "own.jinja"))
    assert tokenizer.chat_template == before


def test_a_template_that_is_neither_known_nor_a_file_is_named(tokenizer):
    with pytest.raises(UsageError, match="'alpca' is none of auto, chat, alpaca, plain"):
        renderer_for(tokenizer, "alpca")
    with pytest.raises(InputError, match=r"none\.jinja: no such file"):
        renderer_for(tokenizer, "none.jinja")


def test_exchanges_add_up_to_the_template_applied_to_all_turns(tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Ciao"},
    ]
    exchanges = renderer_for(tokenizer, "chat").exchanges(messages)
    assert [answer for _, answer in exchanges] == ["Hello<|im_end|>", "Ciao<|im_end|>"]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert "".join(map("".join, exchanges)) + "\n" == whole


def test_plain_is_the_texts_as_they_stand(tokenizer, bos_tokenizer):
    renderer = renderer_for(tokenizer, "plain")
    assert (renderer.prompt("2+2=", ""), renderer.completion("2+2=", "", " 4")) == ("2+2=", " 4<|im_end|>")
    assert renderer_for(bos_tokenizer, "plain").prompt("2+2=", "") == "<s>2+2="


# -- hash --------------------------------------------------------------------------------------------------------------


def test_hash_is_stable_over_loading_and_differs_with_everything_that_shapes_the_text(
    folders, tokenizer, bos_tokenizer
):
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(folders["plain"])
    for template in ("chat", "alpaca"):
        assert renderer_for(tokenizer, template).sha256 == renderer_for(again, template).sha256
        assert len(renderer_for(tokenizer, template).sha256) == 64

    def apply(messages: Any, generation_prompt: bool) -> str:
        raise AssertionError("a hash needs no text")

    hashes = [
        *(AlpacaRenderer(bos, eos).sha256 for bos, eos in [("", "e"), ("b", "e"), ("be", ""), ("", "be")]),
        *(
            ChatRenderer(apply, *parts).sha256
            for parts in [("t", "", "e"), ("u", "", "e"), ("t", "b", "e"), ("t", "", "f")]
        ),
        *(renderer_for(t, name).sha256 for t in (tokenizer, bos_tokenizer) for name in ("chat", "alpaca")),
    ]
    assert len(set(hashes)) == len(hashes)


def test_hash_of_the_alpaca_templates_has_not_changed_unnoticed():
    # Adapters record it; with another hash they count as trained under another template.
    assert AlpacaRenderer("", "</s>").sha256 == "d1cf4d83448e123a546b81fc649aa601373a7aa171fc6b35bd032354a1e961a2"
