"""Exports a data set in the forms that trainers read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from selfinstruct.command import Config
from selfinstruct.dataset import dataset_path, dataset_rows, read_dataset
from selfinstruct.errors import UsageError
from selfinstruct.files import atomic_file, refuse_to_replace, sha256_file, to_json_line
from selfinstruct.render import AlpacaRenderer, joined

Row = dict[str, Any]
Format = Literal["alpaca", "messages", "sharegpt", "completion", "parquet"]


class ExportConfig(Config):
    """Options of `selfinstruct export`."""

    run: Path = Field(description="A run folder, or a dataset.jsonl.")
    out: Path = Field(description="The file to write.")
    format: Format = Field(
        "alpaca",
        description="alpaca: JSON list of instruction, input, output. messages: JSONL of chats. sharegpt: JSON list of "
        "conversations. completion: JSONL of prompt and completion. parquet: columns as alpaca, with id and kind.",
    )
    template: Literal["alpaca"] = Field("alpaca", description="Prompt template of the format completion.")
    overwrite: bool = Field(False, description="Replace the file if it exists.")


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written.

    Attributes:
        rows: Number of rows, one an instance.
        sha256: Of the file.
        entries: By trainer, what its configuration calls the file; see `entries`.
    """

    rows: int
    path: str
    sha256: str
    entries: dict[str, dict[str, Any]]


def export(config: ExportConfig) -> ExportSummary:
    """Write the data set of a run in a form that other trainers read.

    Raises:
        InputError: For a missing, broken or empty data set.
        UsageError: When the output exists, or Parquet is asked for without pyarrow.
    """
    source = dataset_path(config.run)
    if config.out.exists() and config.out.samefile(source):
        raise UsageError(f"{config.out} is the data set itself; choose another --out")
    refuse_to_replace(config.out, config.overwrite)
    rows = [row for example in read_dataset(source) for row in dataset_rows(example)]
    content = _FORMATS[config.format](rows)
    with atomic_file(config.out) as file:
        file.write(content)
    return ExportSummary(len(rows), str(config.out), sha256_file(config.out), entries(config.format, config.out))


def describe(summary: ExportSummary) -> str:
    """The summary for people."""
    lines = [f"wrote {summary.rows} rows to {summary.path} (sha256 {summary.sha256[:12]})"]
    return "\n".join(lines + [f"{name}: {to_json_line(entry)}" for name, entry in summary.entries.items()])


def entries(form: Format, path: Path) -> dict[str, dict[str, Any]]:
    """What LLaMA-Factory's dataset_info.json and the `datasets` of Axolotl's configuration say of an export."""
    factory: dict[Format, dict[str, Any]] = {
        "sharegpt": {"formatting": "sharegpt"},
        "messages": {
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        },
        "completion": {"columns": {"prompt": "prompt", "response": "completion"}},
    }
    axolotl: dict[Format, dict[str, Any]] = {
        "alpaca": {"type": "alpaca"},
        "parquet": {"type": "alpaca"},
        "sharegpt": {
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
        },
        "messages": {"type": "chat_template"},
        "completion": {
            "type": {
                "field_instruction": "prompt",
                "field_output": "completion",
                "format": "{instruction}",
                "no_input_format": "{instruction}",
            }
        },
    }
    return {
        "LLaMA-Factory": {"file_name": path.name, **factory.get(form, {})},  # the columns of alpaca are its defaults
        "Axolotl": {"path": str(path), **axolotl[form]},
    }


def _alpaca(rows: Sequence[Row]) -> bytes:
    """As tatsu-lab/stanford_alpaca's alpaca_data.json, which indents by 4."""
    return _json([{name: row[name] for name in ("instruction", "input", "output")} for row in rows], indent=4)


def _messages(rows: Sequence[Row]) -> bytes:
    return _json_lines([{"messages": _turns(row, "role", "content", "user", "assistant")} for row in rows])


def _sharegpt(rows: Sequence[Row]) -> bytes:
    return _json([{"conversations": _turns(row, "from", "value", "human", "gpt")} for row in rows], indent=2)


def _turns(row: Row, who: str, what: str, user: str, assistant: str) -> list[dict[str, str]]:
    question = joined(row["instruction"], row["input"])
    return [{who: user, what: question}, {who: assistant, what: row["output"]}]


def _completion(rows: Sequence[Row]) -> bytes:
    # Which token ends a sequence is known to whoever trains on these rows, so none is written.
    renderer = AlpacaRenderer(bos="", eos="")
    return _json_lines(
        [
            {
                "prompt": renderer.prompt(row["instruction"], row["input"]),
                "completion": renderer.completion(row["instruction"], row["input"], row["output"]),
            }
            for row in rows
        ]
    )


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("--format parquet needs pyarrow: pip install 'selfinstruct[train]'") from error
    text = [pa.field(name, pa.string()) for name in ("id", "instruction", "input", "output")]
    schema = pa.schema([*text, pa.field("is_classification", pa.bool_())])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    return bytes(sink.getvalue().to_pybytes())


def _json(value: Any, indent: int) -> bytes:
    # A lone surrogate, which JSON may spell, has no UTF-8 form.
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace") + b"\n"


def _json_lines(rows: Sequence[Row]) -> bytes:
    return "".join(to_json_line(row) + "\n" for row in rows).encode()


_FORMATS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "alpaca": _alpaca,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "completion": _completion,
    "parquet": _parquet,
}
