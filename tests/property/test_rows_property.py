"""Whatever a row or a conversation says, exactly its answers and their ends are learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.packing import collate
from finetune.rows import IGNORED, InstructionRow, encode
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(SPOKEN, TEXT, SPOKEN), min_size=1, max_size=4), template=st.sampled_from(["chat", "alpaca"])
)
def test_the_mask_covers_exactly_the_completion(
    tokenizer: PreTrainedTokenizerBase, rows: list[tuple[str, str, str]], template: str
) -> None:
    renderer = renderer_for(tokenizer, template)
    encoded, dropped = encode([InstructionRow(*row, "here") for row in rows], renderer, tokenizer, 10_000)
    assert not dropped
    lengths = [len(one.input_ids) for one in encoded]
    for labels, row, one in zip(collate(encoded)["labels"][0].split(lengths), rows, encoded, strict=True):
        learnt = labels[labels != IGNORED]
        assert tokenizer.decode(learnt) == renderer.completion(*row)
        assert tokenizer.decode(one.input_ids[: one.spans[0][0]]) == renderer.prompt(*row[:2])
        assert learnt.tolist().count(tokenizer.eos_token_id) == 1
        assert learnt[-1] == tokenizer.eos_token_id
        assert len(learnt) == one.supervised_tokens


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
