"""Training data as others publish it: finds out which form a source has, and reads all of its rows in that form.

Forms, told apart by the first row's fields: `messages` (OpenAI, Hugging Face), `conversations` (ShareGPT),
`instruction, input, output` (Stanford Alpaca, and the data set of a run), and `prompt` with `completion` or `response`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import sha256_file, to_json_line, validate
from selfinstruct.labelled_data import LabelledRow, read_labelled
from selfinstruct.records import Message

RUN_DATA = "dataset.jsonl"
# What makes a folder one that `datasets` loads: saved by it, or files of these kinds.
_SAVED = ("dataset_dict.json", "state.json")
_DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".arrow", ".jsonl.gz", ".json.gz", ".csv.gz")


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """A task and its answer, as they stand in a file.

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
        return " ".join(f"{self.instruction} {self.input}".split())

    @property
    def asked(self) -> Sequence[str]:
        """Everything that must not be blank for the answer to make sense."""
        return (self.instruction,)

    @property
    def answers(self) -> Sequence[str]:
        """Everything that is to be learnt."""
        return (self.output,)

    @property
    def exchanges(self) -> Sequence[InstructionRow]:
        """The row itself."""
        return (self,)


@dataclass(frozen=True, slots=True)
class ChatRow:
    """A conversation: a system message or none, then user and assistant in turn, the assistant last."""

    messages: tuple[Message, ...]
    place: str

    @property
    def question(self) -> str:
        """All that comes before the last answer, white space collapsed."""
        return " ".join(" ".join(message["content"] for message in self.messages[:-1]).split())

    @property
    def asked(self) -> Sequence[str]:
        """What the user says."""
        return [message["content"] for message in self.messages if message["role"] == "user"]

    @property
    def answers(self) -> Sequence[str]:
        """What the assistant says."""
        return [message["content"] for message in self.messages if message["role"] == "assistant"]

    @property
    def exchanges(self) -> Sequence[InstructionRow]:
        """Each thing the user says with its answer, as a row by itself; a system message is one without an answer."""
        system = [message["content"] for message in self.messages if message["role"] == "system"]
        said = [*((text, "") for text in system), *zip(self.asked, self.answers, strict=True)]
        return [InstructionRow(question, "", answer, self.place) for question, answer in said]


Row = InstructionRow | ChatRow


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of one file, run folder or data set.

    Attributes:
        path: As it is recorded: the file that was read, or the data set's name.
        sha256: Of the file; of the texts where there is no single file.
    """

    path: str
    rows: tuple[Row, ...]
    sha256: str


# -- the forms ---------------------------------------------------------------------------------------------------------


def _has_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character (a lone surrogate); mend or remove the row") from error
    return text


def _without_tools(value: Any) -> None:
    if value:
        raise ValueError("calls of tools cannot be trained on; remove the row")


def _learnt(value: Any) -> None:
    if value == 0:
        raise ValueError("all answers of a conversation are learnt; remove the row, or the weight")


_Text = Annotated[StrictStr, AfterValidator(_has_utf8)]
# An absent text is null in a table.
_TextOrNothing = Annotated[_Text, BeforeValidator(lambda value: "" if value is None else value)]


class _Fields(BaseModel):
    """Fields beyond those named (a run's dataset.jsonl has some) do not shape the text."""

    model_config = ConfigDict(extra="ignore")


class _AlpacaFields(_Fields):
    instruction: _Text
    input: _TextOrNothing = ""
    output: _Text


class _PairFields(_Fields):
    prompt: _Text
    completion: _Text = Field(validation_alias=AliasChoices("completion", "response"))


class _Said(_Fields):
    role: Literal["system", "user", "assistant"]
    content: _Text
    tool_calls: Annotated[None, BeforeValidator(_without_tools)] = None
    function_call: Annotated[None, BeforeValidator(_without_tools)] = None
    weight: Annotated[None, BeforeValidator(_learnt)] = None


class _MessagesFields(_Fields):
    messages: list[_Said]


class _ShareGptSaid(_Fields):
    speaker: Literal["system", "human", "user", "gpt", "assistant"] = Field(alias="from")
    value: _Text


class _ShareGptFields(_Fields):
    conversations: list[_ShareGptSaid]
    system: _TextOrNothing = ""


def _alpaca(row: LabelledRow) -> Row:
    fields = _checked(_AlpacaFields, row)
    return InstructionRow(fields.instruction, fields.input, fields.output, row.place)


def _pair(row: LabelledRow) -> Row:
    fields = _checked(_PairFields, row)
    return InstructionRow(fields.prompt, "", fields.completion, row.place)


def _messages(row: LabelledRow) -> Row:
    said = _checked(_MessagesFields, row).messages
    return _in_turn([{"role": turn.role, "content": turn.content} for turn in said], row, "messages", "role")


def _sharegpt(row: LabelledRow) -> Row:
    fields = _checked(_ShareGptFields, row)
    roles: Mapping[str, Literal["system", "user", "assistant"]] = {
        "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"
    }  # fmt: skip
    said: list[Message] = [{"role": roles[turn.speaker], "content": turn.value} for turn in fields.conversations]
    chat = _in_turn(said, row, "conversations", "from")
    if not fields.system.strip():
        return chat
    if said[0]["role"] == "system":
        raise row.error("stands beside a system message in 'conversations'", "system", "remove one of them")
    return ChatRow(({"role": "system", "content": fields.system}, *chat.messages), chat.place)


_FORMS: Mapping[str, Callable[[LabelledRow], Row]] = {
    "messages": _messages,
    "conversations": _sharegpt,
    "instruction": _alpaca,
    "prompt": _pair,
}


def _checked(fields: type[Any], row: LabelledRow) -> Any:
    return validate(fields, row.values, path=Path(row.source), line=row.line)


def _in_turn(messages: Sequence[Message], row: LabelledRow, field: str, role: str) -> ChatRow:
    """A conversation whose turns are in order.

    Raises:
        InputError: When they are not, or there is no answer.
    """
    if not messages:
        raise row.error("holds no message", field, "remove the row")
    begins = 1 if messages[0]["role"] == "system" else 0
    for index, (message, wanted) in enumerate(zip(messages[begins:], cycle(("user", "assistant"))), start=begins):
        if message["role"] != wanted:
            raise row.error(
                f"is the {message['role']}'s turn where the {wanted}'s is due", f"{field}.{index}.{role}",
                "merge or remove turns, so that user and assistant take turns after at most one system message",
            )  # fmt: skip
    if messages[-1]["role"] != "assistant":
        raise row.error("ends without an answer", field, "remove what follows the last answer, or the row")
    return ChatRow(tuple(messages), row.place)


def _form_of(row: LabelledRow) -> str | None:
    """The field that tells a row's form."""
    return next((field for field in _FORMS if row.values.get(field) is not None), None)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_source(source: Path) -> Source:
    """Read all rows of a source.

    Args:
        source: A run folder; a file that `read_labelled` reads; or a data set's folder or name, with its configuration
            and split, such as "org/name:train".

    Raises:
        InputError: For a broken or missing file, a row of no known form or of another than the first, a missing or
            wrong field, or a conversation out of order.
        UsageError: When a data set cannot be loaded.
    """
    file = _file(source)
    rows = tuple(read_rows(file))
    return Source(str(file), rows, sha256_file(file) if file.is_file() else _sha256(rows))


def _file(source: Path) -> Path:
    if not source.is_dir():
        return source
    if (source / RUN_DATA).is_file():
        return source / RUN_DATA
    names = [file.name for file in source.rglob("*") if file.is_file()]
    is_run = any((source / name).is_file() for name in ("run.toml", "ledger.sqlite"))
    if is_run or not any(name in _SAVED or name.endswith(_DATA_SUFFIXES) for name in names):
        raise InputError(
            f"holds no {RUN_DATA}", path=source, remedy="give the folder of a finished `selfinstruct generate`"
        )
    return source


def read_rows(source: Path) -> Iterator[Row]:
    """Read the rows of a file or data set, all in the form of the first one.

    Raises:
        InputError: See `read_source`.
    """
    rows = iter(read_labelled(str(source)))
    first = next(rows)
    form = _form_of(first)
    if form is None:
        raise first.error(
            f"has the fields {', '.join(map(str, first.values)) or '(none)'}, which are no training row",
            remedy="give instruction and output, messages, conversations, or prompt and completion",
        )
    for row in chain([first], rows):
        if row.values.get(form) is None and (other := _form_of(row)):
            raise row.error(
                f"has '{other}' where the first row has '{form}'; a file must not mix forms",
                field=form, remedy="put rows of each form into a file of their own, and give both with --data",
            )  # fmt: skip
        yield _FORMS[form](row)


def _sha256(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        texts = row.messages if isinstance(row, ChatRow) else (row.instruction, row.input, row.output)
        digest.update(to_json_line(texts).encode() + b"\n")
    return digest.hexdigest()
