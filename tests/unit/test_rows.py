"""Rows of a file to tokens and masks, with a real tokenizer."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.config import TrainConfig
from finetune.rows import InstructionRow, encode, mixture, prepare, read_rows, split
from finetune.sources import ChatRow
from selfinstruct.errors import InputError, UsageError
from selfinstruct.render import AlpacaRenderer, renderer_for
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


def chat(*contents: str, system: str = "") -> ChatRow:
    """A conversation, the user first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return ChatRow(tuple(messages), "rows.jsonl:7")  # type: ignore[arg-type]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    return path


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_point_1_and_2_only_the_answer_and_its_end_are_learnt(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    (encoded,), dropped = encode([row(output="Lima")], renderer_for(tokenizer, template), tokenizer, 512)
    prompt, learnt = encoded.input_ids[: encoded.spans[0][0]], encoded.input_ids[encoded.spans[0][0] :]
    assert tokenizer.decode(learnt) == "Lima<|im_end|>"
    assert tokenizer.decode(prompt).endswith("assistant\n" if template == "chat" else "### Response:")
    assert learnt.count(tokenizer.eos_token_id) == 1
    assert encoded.supervised_tokens == len(learnt)
    assert not dropped


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_point_5_the_first_token_of_a_text_is_not_doubled(
    bos_tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    (encoded,), _ = encode([row()], renderer_for(bos_tokenizer, template), bos_tokenizer, 512)
    assert encoded.input_ids[0] == bos_tokenizer.bos_token_id
    assert encoded.input_ids.count(bos_tokenizer.bos_token_id) == 1


def test_point_1_and_2_every_answer_of_a_conversation_and_its_end_of_turn_are_learnt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    conversation = chat("Hi", "Hello", "And you?", "Fine.", "Bye", "Ciao", system="Be brief.")
    (encoded,), dropped = encode([conversation], renderer_for(tokenizer, "chat"), tokenizer, 512)
    learnt = [tokenizer.decode(encoded.input_ids[begin:end]) for begin, end in encoded.spans]
    assert learnt == ["Hello<|im_end|>", "Fine.<|im_end|>", "Ciao<|im_end|>"]
    whole = tokenizer.apply_chat_template(conversation.messages, tokenize=False).removesuffix("\n")
    assert list(encoded.input_ids) == tokenizer(whole, add_special_tokens=False).input_ids
    # What the model is given at each turn is exactly what stood before the answer in training.
    for index, (begin, _) in zip((2, 4, 6), encoded.spans, strict=True):
        prompt = tokenizer.apply_chat_template(
            conversation.messages[:index], tokenize=False, add_generation_prompt=True
        )
        assert list(encoded.input_ids[:begin]) == tokenizer(prompt, add_special_tokens=False).input_ids
    assert not dropped
    assert encoded.place == "rows.jsonl:7"


def test_point_4_the_end_of_an_answer_is_learnt_although_it_is_the_padding_token_too(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = [row(), chat("Hi", "Hello", "Bye", "Ciao")]
    for encoded in encode(rows, renderer_for(tokenizer, "chat"), tokenizer, 512)[0]:
        assert [encoded.labels[end - 1] for _, end in encoded.spans] == [tokenizer.eos_token_id] * len(encoded.spans)
        # The ends of the user's turns are the same token and are not learnt.
        assert encoded.labels.count(tokenizer.eos_token_id) == len(encoded.spans)
        assert encoded.input_ids.count(tokenizer.eos_token_id) > len(encoded.spans)


def test_a_conversation_of_one_turn_is_the_row_with_the_same_text(tokenizer: PreTrainedTokenizerBase) -> None:
    for template in ("chat", "alpaca", "plain"):
        renderer = renderer_for(tokenizer, template)
        assert encode([chat("Say it.", "It.")], renderer, tokenizer, 512) == encode([row()], renderer, tokenizer, 512)


def test_point_5_a_conversation_begins_with_one_bos(bos_tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = renderer_for(bos_tokenizer, "chat")
    (encoded,), _ = encode([chat("Hi", "Hello", "Bye", "Ciao")], renderer, bos_tokenizer, 512)
    assert encoded.input_ids.count(bos_tokenizer.bos_token_id) == 1
    assert encoded.input_ids[0] == bos_tokenizer.bos_token_id


def test_a_tokenizer_that_puts_a_space_before_every_text_puts_none_before_later_turns() -> None:
    backend = Tokenizer(BPE(unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = Metaspace(prepend_scheme="first"), MetaspaceDecoder()
    backend.train_from_iterator(["Q ab A: cd Q ef A: gh"], BpeTrainer(special_tokens=["<unk>", "</s>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'Q ' if m['role'] == 'user' else ' A:' }}{{ m['content'] }}"
        "{{ eos_token if m['role'] == 'assistant' }}{% endfor %}{{ ' A:' if add_generation_prompt }}"
    )
    conversation = chat("ab", "cd", "ef", "gh")
    (encoded,), _ = encode([conversation], renderer_for(tokenizer, "chat"), tokenizer, 512)
    whole = tokenizer("Q ab A:cd</s>Q ef A:gh</s>", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(whole[0])[0] == "\u2581"
    second = whole.index(tokenizer.eos_token_id) + 1
    assert tokenizer.convert_ids_to_tokens(whole[second])[0] == "Q"
    assert list(encoded.input_ids) == whole


# As templates do that leave out earlier thoughts.
REWRITING = (
    "{% set ns = namespace(asked=0) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}[{{ m['role'] }}]"
    "{{ '...' if m['role'] == 'assistant' and loop.index0 < ns.asked else m['content'] }}{{ eos_token }}{% endfor %}"
    "{{ '[assistant]' if add_generation_prompt }}"
)


def test_point_1_a_template_that_rewrites_earlier_turns_is_refused_with_the_rows_place(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path, chat_template=REWRITING))
    renderer = renderer_for(tokenizer, "chat")
    assert len(encode([chat("Hi", "Hello")], renderer, tokenizer, 512)[0]) == 1
    with pytest.raises(
        InputError, match=r"rows\.jsonl:7: the chat template writes the first 3 messages in another way"
    ):
        encode([chat("Hi", "Hello", "Bye", "Ciao")], renderer, tokenizer, 512)


def test_an_end_of_turn_that_is_not_the_end_of_sequence_is_learnt_as_well(tmp_path: Path) -> None:
    ends = CHAT.replace("eos_token if m['role'] == 'assistant'", "'</turn>\n'")
    tokenizer = AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path, chat_template=ends))
    (encoded,), _ = encode([chat("Hi", "Hello", "Bye", "Ciao")], renderer_for(tokenizer, "chat"), tokenizer, 512)
    learnt = [tokenizer.decode(encoded.input_ids[begin:end]) for begin, end in encoded.spans]
    assert learnt == ["Hello</turn>\n", "Ciao</turn>\n<|im_end|>"]


def test_a_template_without_ends_of_turns_is_refused_for_several_turns(tmp_path: Path) -> None:
    endless = CHAT.replace("eos_token if m['role'] == 'assistant'", "''")
    tokenizer = AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path, chat_template=endless))
    renderer = renderer_for(tokenizer, "chat")
    assert len(encode([chat("Hi", "Hello")], renderer, tokenizer, 512)[0]) == 1
    with pytest.raises(InputError, match=r"rows\.jsonl:7: the chat template marks no end of an answer"):
        encode([chat("Hi", "Hello", "Bye", "Ciao")], renderer, tokenizer, 512)


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_what_a_template_has_no_place_for_is_dropped_and_counted(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    rows = [chat("Hi", "Hello"), chat("Hi", "Hello", "Bye", "Ciao"), chat("Hi", "Hello", system="Be brief.")]
    encoded, dropped = encode(rows, renderer_for(tokenizer, template), tokenizer, 512)
    assert (len(encoded), dropped) == (1, {"several_turns": 1, "system_message": 1})


def test_an_exported_completion_is_the_alpaca_template_under_plain(tokenizer: PreTrainedTokenizerBase) -> None:
    without_eos = AlpacaRenderer(bos="", eos="")
    pair = row(without_eos.prompt("Name it.", "x"), "", without_eos.completion("Name it.", "x", "It."))
    plain = encode([pair], renderer_for(tokenizer, "plain"), tokenizer, 512)
    assert plain == encode([row("Name it.", "x", "It.")], renderer_for(tokenizer, "alpaca"), tokenizer, 512)


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


def test_point_3_a_row_is_never_cut_and_gets_no_end_that_it_has_not(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [row(output="long " * n) for n in (1, 50, 100_000)]
    encoded, dropped = encode(rows, renderer_for(tokenizer, "chat"), tokenizer, 100)
    assert [tokenizer.decode(one.input_ids[slice(*one.spans[0])]) for one in encoded] == ["long <|im_end|>"]
    assert dropped == {"too_long": 2}


def test_an_answer_in_the_middle_that_quotes_its_end_is_dropped(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [chat("Hi", "Say <|im_end|> now", "Bye", "Ciao"), chat("Hi", "", "Bye", "Ciao"), chat("Hi", "a", "", "b")]
    assert encode(rows, renderer_for(tokenizer, "chat"), tokenizer, 512) == (
        [], {"eos_in_output": 1, "empty_output": 1, "empty_instruction": 1},
    )  # fmt: skip


def test_a_row_as_long_as_allowed_is_kept_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = renderer_for(tokenizer, "chat")
    (whole,), _ = encode([row()], renderer, tokenizer, 512)
    assert encode([row()], renderer, tokenizer, len(whole.input_ids)) == ([whole], {})
    assert encode([row()], renderer, tokenizer, len(whole.input_ids) - 1) == ([], {"too_long": 1})


def test_point_6_a_row_without_anything_to_learn_is_dropped(tokenizer: PreTrainedTokenizerBase) -> None:
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


def test_a_mixture_gives_each_source_its_share() -> None:
    a, b = [f"a{i}" for i in range(10)], [f"b{i}" for i in range(90)]
    mixed = mixture([a, b], [0.3, 0.7], seed=1)
    assert [len(rows) for rows in mixed] == [30, 70]  # as many as there are
    assert Counter(mixed[0]) == Counter(a * 3)  # repeated evenly
    assert len(set(mixed[1])) == 70  # a part, each once
    assert mixed[1] == sorted(mixed[1], key=b.index)
    assert mixture([a, b], [3, 7], seed=1) == mixed
    assert mixture([a, b], [0.3, 0.7], seed=2)[1] != mixed[1]
    assert mixture([a, b], [10, 90], seed=1) == [a, b]
    uneven = mixture([a, b], [1, 2], seed=1)
    assert [len(rows) for rows in uneven] == [33, 67]
    assert set(Counter(uneven[0]).values()) == {3, 4}


def test_weights_leave_evaluation_rows_alone_and_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    few = write(tmp_path / "few.jsonl", *({**ROW, "input": str(i)} for i in range(4)))
    many = write(tmp_path / "many.jsonl", *({**ROW, "input": f"m{i}"} for i in range(16)), {**ROW, "output": ""})
    renderer = renderer_for(tokenizer, "chat")
    plain = TrainConfig(data=[few, many], out=tmp_path / "out", eval_fraction=0.2)
    weighted = plain.model_copy(update={"weights": [1, 1]})
    before, after = (prepare(config, renderer, tokenizer) for config in (plain, weighted))
    assert before.eval_rows == after.eval_rows
    assert before.dropped == after.dropped
    assert len(before.rows) == len(after.rows) == sum(file.used or 0 for file in after.files)
    assert abs(after.files[0].used - after.files[1].used) <= 1
    assert [file.rows for file in after.files] == [4, 17]
    assert set(after.rows) <= set(before.rows)
    assert prepare(weighted, renderer, tokenizer).rows == after.rows


def test_rows_that_held_out_tasks_have_too(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    question = "Which of the seven wonders of the ancient world still stands today in the desert near Cairo?"
    tasks = write(
        tmp_path / "tasks.jsonl",
        {"task": "t", "cluster": "c", "instruction": question, "input": "", "references": ["The pyramid"]},
    )
    leaks = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"I was asked: {question}"}]},
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "A pyramid"}]},
    ]
    clean = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    data = write(tmp_path / "data.jsonl", leaks[0], clean, leaks[1])
    renderer = renderer_for(tokenizer, "chat")
    config = TrainConfig(data=[data], out=tmp_path / "out", held_out=[tasks])
    with pytest.raises(InputError, match=r"data\.jsonl:1: 2 rows have .* shares .* item 'tasks/1'.*; .*jsonl:3.*drop"):
        prepare(config, renderer, tokenizer)
    reported = prepare(config.model_copy(update={"contamination": "report"}), renderer, tokenizer)
    assert (len(reported.rows), reported.dropped) == (3, {})
    assert "trained on all the same" in caplog.text
    kept = prepare(config.model_copy(update={"contamination": "drop"}), renderer, tokenizer)
    assert (len(kept.rows), kept.dropped) == (1, {"contaminated": 2})
    assert [finding.place for finding in kept.contaminated] == [f"{data}:1", f"{data}:3"]
    assert [(file.role, file.path) for file in kept.files][1:] == [("held_out", str(tasks))]


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
