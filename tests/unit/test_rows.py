"""Rows of a file to tokens and masks, with a real tokenizer."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.config import TrainConfig
from finetune.rows import InstructionRow, encode, prepare, read_rows, split
from selfinstruct.errors import InputError, UsageError
from selfinstruct.render import renderer_for
from tests.tiny import build_tiny_llama

ROW = {"instruction": "Name the capital of Peru.", "input": "", "output": "Lima"}
SEED = {
    "id": "yes_no-01",
    "name": "parity",
    "instruction": "Is the number even?",
    "instances": [{"input": "2", "output": "yes"}, {"input": "3", "output": "no"}],
    "is_classification": True,
}


CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' }}{% endfor %}"
    "{{ '[assistant]' if add_generation_prompt }}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def bos_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = build_tiny_llama(tmp_path_factory.mktemp("tiny_bos"), bos=True, chat_template="{{ bos_token }}" + CHAT)
    return AutoTokenizer.from_pretrained(folder)


def row(instruction: str = "Say it.", input: str = "", output: str = "It.") -> InstructionRow:
    return InstructionRow(instruction, input, output, "rows.jsonl:7")


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    return path


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_only_the_answer_and_its_end_are_learnt(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    (encoded,), dropped = encode([row(output="Lima")], renderer_for(tokenizer, template), tokenizer, 512)
    prompt, learnt = encoded.input_ids[: encoded.spans[0][0]], encoded.input_ids[encoded.spans[0][0] :]
    assert tokenizer.decode(learnt) == "Lima<|im_end|>"
    assert tokenizer.decode(prompt).endswith("assistant\n" if template == "chat" else "### Response:")
    assert learnt.count(tokenizer.eos_token_id) == 1
    assert encoded.supervised_tokens == len(learnt)
    assert not dropped


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_the_first_token_of_a_text_is_not_doubled(bos_tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    (encoded,), _ = encode([row()], renderer_for(bos_tokenizer, template), bos_tokenizer, 512)
    assert encoded.input_ids[0] == bos_tokenizer.bos_token_id
    assert encoded.input_ids.count(bos_tokenizer.bos_token_id) == 1


class Merging:
    """A template without a token boundary before the answer: "response" is one token in the tiny tokenizer."""

    name, sha256 = "merging", "0"

    def prompt(self, instruction: str, input: str) -> str:
        return " respon"

    def completion(self, instruction: str, input: str, output: str) -> str:
        return "se<|im_end|>"


def test_an_answer_that_would_merge_into_the_prompt_follows_it_as_at_inference(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    alone = tokenizer(" respon").input_ids
    assert tokenizer(" response").input_ids[: len(alone)] != alone
    (encoded,), _ = encode([row()], Merging(), tokenizer, 512)
    assert list(encoded.input_ids[: encoded.spans[0][0]]) == alone
    assert tokenizer.decode(encoded.input_ids[encoded.spans[0][0] :]) == "se<|im_end|>"


def test_an_answer_that_cannot_be_told_from_the_prompt_is_refused_with_its_place(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path))
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    with pytest.raises(InputError, match=r"rows\.jsonl:7: field 'output'.*merge"):
        encode([row()], Merging(), tokenizer, 512)


def test_what_cannot_be_learnt_is_dropped_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = renderer_for(tokenizer, "chat")
    rows = [
        row(),
        row(instruction="  "),
        row(output=""),
        row(output=" \n"),
        row(output="long " * 200),
        row(output="It.<|im_end|>And more."),
        row(instruction="Kept   out.", input="x"),
    ]
    encoded, dropped = encode(rows, renderer, tokenizer, 64, kept_out=[row("Kept out.", "x").question])
    assert len(encoded) == 1
    assert dropped == {
        "empty_instruction": 1, "empty_output": 2, "too_long": 1, "eos_in_output": 1, "in_eval_data": 1,
    }  # fmt: skip


def test_a_row_as_long_as_allowed_is_kept_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = renderer_for(tokenizer, "chat")
    (whole,), _ = encode([row()], renderer, tokenizer, 512)
    assert encode([row()], renderer, tokenizer, len(whole.input_ids)) == ([whole], {})
    assert encode([row()], renderer, tokenizer, len(whole.input_ids) - 1) == ([], {"too_long": 1})


def test_a_row_without_anything_to_learn_is_dropped(tokenizer: PreTrainedTokenizerBase) -> None:
    class Silent:
        name, sha256 = "silent", "0"

        def prompt(self, instruction: str, input: str) -> str:
            return instruction

        def completion(self, instruction: str, input: str, output: str) -> str:
            return ""

    assert encode([row()], Silent(), tokenizer, 512) == ([], {"all_masked": 1})


def test_reads_alpaca_lists_lines_and_gzip(tmp_path: Path) -> None:
    lines = write(tmp_path / "rows.jsonl", {**ROW, "id": "kept out of the text"}, {**ROW, "input": "in"})
    as_list = tmp_path / "rows.json"
    as_list.write_text(json.dumps([ROW, {**ROW, "input": "in"}]))
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    texts = [[(r.instruction, r.input, r.output) for r in read_rows(path)] for path in (lines, as_list, packed)]
    assert texts[0] == texts[1] == texts[2] == [(*ROW.values(),), (ROW["instruction"], "in", ROW["output"])]
    assert [r.place for r in read_rows(lines)] == [f"{lines}:1", f"{lines}:2"]
    assert [r.place for r in read_rows(as_list)] == [f"{as_list}[0]", f"{as_list}[1]"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"instruction": "x", "input": ""}', r"a\.jsonl:1: field 'output': is missing"),
        ("a.jsonl", f"{json.dumps(ROW)}\n{json.dumps({**ROW, 'input': 3})}", r"a\.jsonl:2: field 'input'"),
        ("a.jsonl", f"{json.dumps(ROW)}\n{{broken", r"a\.jsonl:2: is not valid JSON"),
        ("a.jsonl", "[1, 2]", r"a\.jsonl:1: must be a JSON object"),
        ("a.json", json.dumps([ROW, {"output": "x"}]), r"a\.json\[1\]: field 'instruction': is missing"),
        ("a.json", json.dumps(ROW), r"a\.json: must be a list"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_rows(tmp_path / name))


def test_a_run_folder_and_the_seeds_on_request(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write(run / "dataset.jsonl", {**ROW, "id": "1", "source": {"slot": 0}})
    seeds = write(tmp_path / "seeds.jsonl", SEED)
    renderer = renderer_for(tokenizer, "chat")
    without = prepare(TrainConfig(data=[run], out=tmp_path / "out"), renderer, tokenizer)
    config = TrainConfig(data=[run], out=tmp_path / "out", include_seeds=True, seeds=seeds)
    both = prepare(config, renderer, tokenizer)
    assert len(without.rows) == 1
    assert len(both.rows) == 3
    assert [(file.role, file.rows) for file in both.files] == [("train", 1), ("seeds", 1 * 2)]
    assert tokenizer.decode(both.rows[2].input_ids[both.rows[2].spans[0][0] :]) == "no<|im_end|>"


def test_evaluation_rows_are_never_trained_on(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = write(tmp_path / "data.jsonl", ROW, {**ROW, "input": "other"})
    held = write(tmp_path / "eval.jsonl", {**ROW, "output": "another answer to the same question"})
    config = TrainConfig(data=[data], out=tmp_path / "out", eval_data=held)
    prepared = prepare(config, renderer_for(tokenizer, "chat"), tokenizer)
    assert (len(prepared.rows), len(prepared.eval_rows)) == (1, 1)
    assert prepared.dropped == {"in_eval_data": 1}


def test_a_split_is_a_partition_and_follows_the_seed() -> None:
    rows = [row(input=str(i)) for i in range(50)]
    train, held = split(rows, 0.1, seed=3)
    assert len(held) == 5
    assert Counter(train + held) == Counter(rows)
    assert split(rows, 0.1, seed=3) == (train, held)
    assert split(rows, 0.1, seed=4) != (train, held)
    assert len(split(rows, 0.001, seed=3)[1]) == 1


def test_no_row_left_is_an_error_with_the_reasons(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = TrainConfig(data=[write(tmp_path / "a.jsonl", ROW)], out=tmp_path / "out", max_length=8)
    with pytest.raises(UsageError, match="1 too_long"):
        prepare(config, renderer_for(tokenizer, "chat"), tokenizer)


@pytest.mark.parametrize("files", [{}, {"other.txt": ""}])
def test_a_folder_without_a_data_set_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"dataset\.jsonl"):
        prepare(TrainConfig(data=[tmp_path], out=tmp_path / "out"), renderer_for(tokenizer, "chat"), tokenizer)


def test_an_empty_file_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = TrainConfig(data=[write(tmp_path / "a.jsonl")], out=tmp_path / "out")
    with pytest.raises(InputError, match=r"a\.jsonl: holds no row"):
        prepare(config, renderer_for(tokenizer, "chat"), tokenizer)
