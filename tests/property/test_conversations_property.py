"""Whatever a conversation says, exactly its answers and their ends are learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.rows import encode
from finetune.sources import ChatRow
from selfinstruct.records import Message
from selfinstruct.render import renderer_for
from tests.tiny import build_tiny_llama

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "<" not in text)
SPOKEN = TEXT.filter(lambda text: bool(text.strip()))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder: Path = build_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(SPOKEN, SPOKEN), min_size=1, max_size=4), system=st.one_of(st.none(), SPOKEN))
def test_the_mask_covers_exactly_the_answers_of_a_conversation(
    tokenizer: PreTrainedTokenizerBase, turns: list[tuple[str, str]], system: str | None
) -> None:
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (encoded,), dropped = encode([ChatRow(tuple(messages), "here")], renderer_for(tokenizer, "chat"), tokenizer, 10_000)
    assert not dropped
    learnt = [tokenizer.decode(encoded.input_ids[begin:end]) for begin, end in encoded.spans]
    assert learnt == [f"{answer}<|im_end|>" for _, answer in turns]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(encoded.input_ids) + "\n" == whole
