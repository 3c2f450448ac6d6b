"""From data files to training rows: reading, splitting off the evaluation rows, tokenising and masking.

Every row that is not used is counted under a reason; none is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr

from finetune.config import TrainConfig
from finetune.folder import FileRecord
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_json, read_jsonl, sha256_file, shipped, validate
from selfinstruct.render import Renderer
from selfinstruct.seeds import read_seeds

# The ignore_index of torch.nn.functional.cross_entropy.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One row as it stands in a file.

    Attributes:
        place: Where, for messages: "data.jsonl:3", or "data.json[2]" in a JSON list.
    """

    instruction: str
    input: str
    output: str
    place: str

    @property
    def question(self) -> str:
        """What is asked, white space collapsed; rows that ask the same are duplicates."""
        return f"{' '.join(self.instruction.split())}\0{' '.join(self.input.split())}"


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One row as tokens: what is given, and the answers in it, which alone are learnt.

    Attributes:
        input_ids: Shape (seq).
        spans: (begin, end) in input_ids of each answer, its end-of-sequence token included, in order.
    """

    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def supervised_tokens(self) -> int:
        """Tokens of the answers, their end-of-sequence tokens included."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def labels(self) -> list[int]:
        """input_ids where they are learnt, IGNORED elsewhere, shape (seq)."""
        labels = [IGNORED] * len(self.input_ids)
        for begin, end in self.spans:
            labels[begin:end] = self.input_ids[begin:end]
        return labels


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything that a training takes from files.

    Attributes:
        rows, eval_rows: In the order of the files.
        dropped, eval_dropped: Reason to number of rows.
    """

    rows: tuple[TrainingRow, ...]
    eval_rows: tuple[TrainingRow, ...]
    dropped: Mapping[str, int]
    eval_dropped: Mapping[str, int]
    files: tuple[FileRecord, ...]


class _Row(BaseModel):
    """Stanford Alpaca's row; fields beyond these (a run's dataset.jsonl has some) do not shape the text."""

    model_config = ConfigDict(extra="ignore")

    instruction: StrictStr
    input: StrictStr = ""
    output: StrictStr


def prepare(config: TrainConfig, renderer: Renderer, tokenizer: Any) -> TrainingData:
    """Read all data that the configuration names, split it and turn it into tokens.

    Args:
        config: Says which files, how many rows to keep out and how long a row may be.
        renderer: Of this tokenizer.
        tokenizer: A `PreTrainedTokenizerBase`.

    Raises:
        InputError: For a file or a row that cannot be used.
        UsageError: When no row is left.
    """
    files: list[FileRecord] = []
    rows: list[InstructionRow] = []
    for path in config.data:
        file = path / "dataset.jsonl" if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise InputError(
                "holds no dataset.jsonl", path=path, remedy="give the folder of a finished `selfinstruct generate`"
            )
        _add(read_rows(file), file, "train", rows, files)
    if config.include_seeds:
        file = config.seeds or shipped("seed_tasks.jsonl")
        _add(read_seed_rows(file), file, "seeds", rows, files)
    eval_rows: list[InstructionRow] = []
    if config.eval_data:
        _add(read_rows(config.eval_data), config.eval_data, "eval", eval_rows, files)
    elif config.eval_fraction:
        rows, eval_rows = split(rows, config.eval_fraction, config.seed)

    kept_out = {row.question for row in eval_rows}
    training_rows, dropped = encode(rows, renderer, tokenizer, config.max_length, kept_out)
    held_rows, eval_dropped = encode(eval_rows, renderer, tokenizer, config.max_length)
    if not training_rows:
        raise UsageError(f"no row is left to train on: {_counts(dropped) or 'all are kept out for evaluation'}")
    if kept_out and not held_rows:
        raise UsageError(f"no row is left to evaluate on: {_counts(eval_dropped)}")
    return TrainingData(tuple(training_rows), tuple(held_rows), dropped, eval_dropped, tuple(files))


def _add(
    read: Iterable[InstructionRow],
    path: Path,
    role: Literal["train", "seeds", "eval"],
    rows: list[InstructionRow],
    files: list[FileRecord],
) -> None:
    found = list(read)
    if not found:
        raise InputError("holds no row", path=path, remedy="give a file with instruction, input and output")
    rows += found
    files.append(FileRecord(role=role, path=str(path), sha256=sha256_file(path), rows=len(found)))


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in dropped.items())


def read_rows(path: Path) -> Iterator[InstructionRow]:
    """Read Alpaca rows: a JSON list, or one object a line; either may be gzipped.

    Raises:
        InputError: For a broken file, or a missing or wrong field.
    """
    if path.name.removesuffix(".gz").endswith(".json"):
        values = read_json(path)
        if not isinstance(values, list):
            raise InputError("must be a list of rows", path=path, remedy="write [{...}, ...], or JSON lines as .jsonl")
        for index, value in enumerate(values):
            place = f"{path}[{index}]"
            row = validate(_Row, value, path=Path(place))
            yield InstructionRow(row.instruction, row.input, row.output, place)
    else:
        for line, value in read_jsonl(path):
            row = validate(_Row, value, path=path, line=line)
            yield InstructionRow(row.instruction, row.input, row.output, f"{path}:{line}")


def read_seed_rows(path: Path) -> Iterator[InstructionRow]:
    """Read seed tasks, one row for each instance.

    Raises:
        InputError: For a broken file.
    """
    for seed in read_seeds(path):
        for instance in seed.instances:
            yield InstructionRow(seed.instruction, instance.input, instance.output, f"{path} ({seed.id})")


def split(
    rows: Sequence[InstructionRow], eval_fraction: float, seed: int
) -> tuple[list[InstructionRow], list[InstructionRow]]:
    """Keep a random share of the rows out, at least one; both parts keep the order of the files.

    Returns:
        (rows to train on, rows to evaluate on).
    """
    n_eval = max(1, round(eval_fraction * len(rows)))
    kept_out = set(Random(f"{seed}/eval").sample(range(len(rows)), n_eval))  # noqa: S311
    return (
        [row for index, row in enumerate(rows) if index not in kept_out],
        [row for index, row in enumerate(rows) if index in kept_out],
    )


def encode(
    rows: Sequence[InstructionRow],
    renderer: Renderer,
    tokenizer: Any,
    max_length: int,
    kept_out: Iterable[str] = (),
) -> tuple[list[TrainingRow], dict[str, int]]:
    """Turn rows into tokens, each with the length of its prompt.

    Args:
        rows: As read.
        renderer: Of this tokenizer.
        tokenizer: A `PreTrainedTokenizerBase`.
        max_length: Most tokens of a row.
        kept_out: Questions (`InstructionRow.question`) of evaluation rows, which must not be trained on.

    Returns:
        The rows that can be used, and how many were dropped for each reason: "empty_instruction", "empty_output",
        "in_eval_data", "eos_in_output" (the text holds the end-of-sequence token), "all_masked" (no token to learn)
        and "too_long".

    Raises:
        InputError: When the tokens of a prompt cannot be made the first tokens of the whole row; what is learnt would
            then not follow what the model is given later.
        UsageError: When the tokenizer does not know its own end-of-sequence token.
    """
    dropped: Counter[str] = Counter()
    excluded = frozenset(kept_out)
    usable = []
    for row in rows:
        if reason := _unusable(row, excluded):
            dropped[reason] += 1
        else:
            usable.append(row)
    prompts = [renderer.prompt(row.instruction, row.input) for row in usable]
    completions = [renderer.completion(row.instruction, row.input, row.output) for row in usable]
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    encoded = []
    for row, completion, prompt_ids, ids in zip(
        usable, completions, _ids(tokenizer, prompts), _ids(tokenizer, texts), strict=True
    ):
        if ids[: len(prompt_ids)] != prompt_ids:
            ids = _joined(tokenizer, prompt_ids, completion, ids, row.place)
        training_row = TrainingRow(tuple(ids), ((len(prompt_ids), len(ids)),))
        if reason := _unlearnable(training_row, tokenizer.eos_token_id, max_length):
            dropped[reason] += 1
        else:
            encoded.append(training_row)
    return encoded, dict(dropped)


def _joined(tokenizer: Any, prompt_ids: list[int], completion: str, whole: list[int], place: str) -> list[int]:
    """Tokens of prompt and completion, each by itself, for a row whose text has no token boundary between them.

    In "### Response:- one" a tokenizer may read ":-" as one token. What a model is given later is the prompt alone,
    which ends with ":", so the answer that follows has to start with "-" in training too.

    Raises:
        InputError: When the parts do not add up to the text of the whole, as with tokenizers that put a space before
            every text.
    """
    ids = [*prompt_ids, *_ids(tokenizer, [completion])[0]]
    if tokenizer.decode(ids) != tokenizer.decode(whole):
        raise InputError(
            "the first tokens of the answer merge with the last ones of the prompt, so the answer cannot be told from "
            "the prompt",
            path=place,
            field="output",
            remedy="use another --template, or mend or remove the row",
        )
    return ids


def _unusable(row: InstructionRow, kept_out: frozenset[str]) -> str | None:
    """Why a row as it stands in the file cannot be trained on."""
    if not row.instruction.strip():
        return "empty_instruction"
    if not row.output.strip():
        return "empty_output"
    return "in_eval_data" if row.question in kept_out else None


def _unlearnable(row: TrainingRow, eos_token_id: int, max_length: int) -> str | None:
    """Why a tokenised row cannot be trained on."""
    completion = row.input_ids[row.spans[0][0] :]
    if not completion:
        return "all_masked"
    if completion[-1] != eos_token_id:
        raise UsageError("the model's tokenizer does not read its own end-of-sequence token back as one token")
    if completion.count(eos_token_id) > 1:
        return "eos_in_output"
    return "too_long" if len(row.input_ids) > max_length else None


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Tokens of rendered texts, which hold their special tokens already."""
    if not texts:  # an error in some tokenizers
        return []
    # Not verbose: rows beyond the model's length are dropped by --max-length and counted.
    return tokenizer(texts, add_special_tokens=False, verbose=False).input_ids  # type: ignore[no-any-return]
