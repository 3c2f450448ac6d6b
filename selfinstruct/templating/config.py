"""What `selfinstruct templates` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from selfinstruct.command import Config

P3 = "p3"
# FLAN's cap on the examples of one data set (section 2.4).
FLAN_MAX_ROWS = 30_000


class TemplatesConfig(Config):
    """Options of `selfinstruct templates`."""

    source: str = Field(
        description="Labelled rows: a .jsonl, .csv, .tsv or .parquet file (text also .gz), or what the package "
        "datasets loads, such as glue/mrpc:train or FOLDER:train."
    )
    task: str = Field(
        description="The kind of task: closed_book_qa, coreference, data_to_text, inference, multiple_choice, "
        "paraphrase, reading_comprehension, reasoning, sentiment, summarisation, topic or translation; a .toml file "
        "with templates of your own; or p3 for rows that are instructions already (cluster, dataset, template, prompt, "
        "completion).",
        json_schema_extra={"metavar": "CLUSTER"},
    )
    out: Path = Field(description="The file to write.")
    format: Literal["instructions", "tasks"] = Field(
        "instructions",
        description="instructions: rows for finetune train and selfinstruct export. tasks: held-out items for finetune "
        "evaluate.",
    )
    dataset: str | None = Field(None, description="Name of the data set, where the file's name is not a good one.")
    map: list[str] = Field(
        [],
        description="Which column holds a field, as in premise=sentence1. A dot reaches inside (choices=choices.text), "
        "commas make a list (choices=option1,option2).",
        json_schema_extra={"metavar": "FIELD=COLUMN"},
    )
    labels: list[str] = Field(
        [],
        description="What a label stands for, as in 0=entailment; name every class that the data has. Rows whose label "
        "stands for nothing (-1=) are left out. A label alone stands for itself.",
        json_schema_extra={"metavar": "LABEL=CLASS"},
    )
    constant: list[str] = Field(
        [],
        description="A field that is the same in all rows, as in target_language=German.",
        json_schema_extra={"metavar": "FIELD=TEXT"},
    )
    templates_per_row: int = Field(1, ge=1, description="How many templates each row is written in.")
    per_template_max: int | None = Field(None, ge=1, description="Most rows written in one template.")
    max_rows: int = Field(
        FLAN_MAX_ROWS, ge=0, description="Most rows used of a data set, drawn at random; 0 uses all. As in FLAN."
    )
    only: list[str] = Field([], description="Use only this template.", json_schema_extra={"metavar": "TEMPLATE"})
    reversed: bool = Field(True, description="Use templates that turn the task around too; tasks never do.")
    options: bool = Field(True, description='End with "OPTIONS:" and the classes where a template does not name them.')
    hold_out: list[str] = Field(
        [],
        description="A cluster not to be trained on: refused, or left out of p3. With --format tasks, one to write.",
        json_schema_extra={"metavar": "CLUSTER"},
    )
    hold_out_tasks: list[Path] = Field(
        [],
        description="A file or folder of held-out tasks: their clusters and data sets are held out.",
        json_schema_extra={"metavar": "FILE"},
    )
    seed: int = Field(0, description="Seed of the choice of templates and rows.")
    overwrite: bool = Field(False, description="Replace the file if it exists.")
