"""`selfinstruct templates`: labelled data becomes instruction data through written templates, without a teacher.

After FLAN (Wei et al., 2022): every row is put into the words of a template of its task cluster, some of which turn the
task around (section 2.1); a held-out cluster stays out of the training data (2.2); classes are listed as options (2.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfinstruct.errors import UsageError
from selfinstruct.files import atomic_file, digest, refuse_to_replace, to_json_line
from selfinstruct.labelled_data import LabelledData, LabelledRow, read_labelled
from selfinstruct.progress import Progress
from selfinstruct.templating.caps import Caps, Place
from selfinstruct.templating.clusters import read_cluster, shipped_clusters
from selfinstruct.templating.config import P3
from selfinstruct.templating.config import TemplatesConfig as TemplatesConfig
from selfinstruct.templating.drafts import Draft, P3Drafts, TemplateDrafts
from selfinstruct.templating.held_out import HeldOut, check_known


@dataclass(frozen=True, slots=True)
class TemplatesSummary:
    """What was written.

    Attributes:
        rows_read: Rows of the input.
        rows_written: Rows of the output.
        left_out: Rows by reason: "held_out", "unusable" (its label is left out by --labels, its answer is empty in P3,
            or it lacks what the templates of --only need), "duplicate", "max_rows", and "per_template_max", which
            counts rows of the output.
        clusters, templates, labels: Rows of the output by cluster, by template and by class (or letter of the choice).
    """

    path: str
    rows_read: int
    rows_written: int
    left_out: dict[str, int]
    clusters: dict[str, int]
    templates: dict[str, int]
    labels: dict[str, int]


def templates(config: TemplatesConfig) -> TemplatesSummary:
    """Put labelled data into the words of written templates, as instruction data or held-out tasks.

    Memory does not grow with the input beyond a number for each row that is written.

    Raises:
        InputError: For a broken input or template file, or a row that lacks a field or has a wrong value in it.
        UsageError: For held-out data that would be trained on, an unknown cluster, field, class or template, an output
            that exists, or when no row is left.
    """
    refuse_to_replace(config.out, config.overwrite)
    if config.out.exists() and Path(config.source).exists() and config.out.samefile(config.source):
        raise UsageError(f"--out {config.out} is the labelled data itself; give another file")
    held_out = HeldOut.of(config)
    drafts_of: Callable[[LabelledRow], list[Draft]]
    if config.task == P3:
        drafts_of = P3Drafts(config)
        data = read_labelled(config.source)
    else:
        shipped_here = shipped_clusters()
        cluster = read_cluster(_template_file(config.task, shipped_here))
        check_known(config, sorted({*shipped_here, cluster.name}))
        data = read_labelled(config.source)
        dataset = config.dataset or data.name
        if not held_out.keeps(cluster.name, dataset):
            raise UsageError(_refusal(cluster.name, dataset, held_out))
        drafts_of = TemplateDrafts(cluster, dataset, config)
    return _write(config, data, drafts_of, held_out)


def _template_file(task: str, known: Mapping[str, Path]) -> Path:
    if task.endswith(".toml"):
        return Path(task)
    if task not in known:
        raise UsageError(f"--task: there is no '{task}'; give one of {', '.join(known)}, {P3}, or a .toml file")
    return known[task]


def _refusal(cluster: str, dataset: str, held_out: HeldOut) -> str:
    if held_out.wanted:
        return f"cluster '{cluster}' is not held out, so no held-out tasks are written of it"
    return (
        f"cluster '{cluster}' or data set '{dataset}' is held out, so it must not be trained on; "
        "to write held-out tasks of it, add --format tasks"
    )


def _write(
    config: TemplatesConfig,
    data: LabelledData,
    drafts_of: Callable[[LabelledRow], list[Draft]],
    held_out: HeldOut,
) -> TemplatesSummary:
    caps = _caps(config, data, drafts_of, held_out)
    left_out, clusters, used, labels = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    met: dict[str, None] = {}
    keys: set[int] = set()
    n_rows = n_written = 0
    with atomic_file(config.out) as file, Progress("row", data.n_rows) as progress:
        for n_rows, row in enumerate(data, start=1):
            drafts = drafts_of(row)
            met |= dict.fromkeys(draft.cluster for draft in drafts)
            place = _place(config, drafts, n_rows)
            reason = _unwanted(drafts, held_out)
            if not reason and not caps.allow_row(place, drafts[0]):
                reason = "max_rows"
            if not reason and (key := int(drafts[0].key, 16)) in keys:
                reason = "duplicate"
            if reason:
                left_out[reason] += 1
            else:
                keys.add(key)
                written = [draft for draft in drafts if caps.allow_draft(place, draft)]
                left_out["per_template_max"] += len(drafts) - len(written)
                for draft in written:
                    values = draft.as_task() if config.format == "tasks" else draft.as_instruction()
                    file.write(to_json_line(values).encode() + b"\n")
                clusters.update(draft.cluster for draft in written)
                used.update(draft.template for draft in written if draft.template)
                labels.update(draft.label for draft in written if draft.label)
                n_written += len(written)
            progress.update(n_rows, f"{n_written} written")
        if config.task == P3:
            check_known(config, met)
        if not n_written:
            raise UsageError(f"no row is left: {', '.join(f'{n} {reason}' for reason, n in left_out.items())}")
    counts = ({name: counts[name] for name in sorted(counts)} for counts in (+left_out, clusters, used, labels))
    return TemplatesSummary(str(config.out), n_rows, n_written, *counts)


def _unwanted(drafts: Sequence[Draft], held_out: HeldOut) -> str | None:
    """Why a row is not written, whatever other rows there are."""
    if drafts and not held_out.keeps(drafts[0].cluster, drafts[0].dataset):
        return "held_out"
    return None if drafts and drafts[0].references[0] else "unusable"


def _caps(
    config: TemplatesConfig,
    data: LabelledData,
    drafts_of: Callable[[LabelledRow], list[Draft]],
    held_out: HeldOut,
) -> Caps:
    """The caps, with all rows counted if there may be more than they allow."""
    caps = Caps(config.max_rows, config.per_template_max)
    if caps.may_bind(data.n_rows):
        with Progress("row counted", data.n_rows) as progress:
            for number, row in enumerate(data, start=1):
                drafts = drafts_of(row)
                if not _unwanted(drafts, held_out):
                    caps.add(_place(config, drafts, number), drafts)
                progress.update(number, "")
    return caps


def _place(config: TemplatesConfig, drafts: Sequence[Draft], number: int) -> Place:
    return int(digest(f"{config.seed}/{drafts[0].key}"), 16) if drafts else 0, number


def describe(summary: TemplatesSummary) -> str:
    """The summary in words."""
    lines = [f"{summary.path}: {summary.rows_written} rows written, {summary.rows_read} read"]
    for title, counts in (
        ("left out", summary.left_out), ("cluster", summary.clusters), ("label", summary.labels),
        ("template", summary.templates),
    ):  # fmt: skip
        lines += [f"  {title:<8}  {n:>7}  {name}" for name, n in counts.items()]
    return "\n".join(lines)
