"""A comparison in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.changes import NOTABLE_EFFECT, Change, Comparison, Contamination, Difference
from finetune.statistics import ALPHA, MIN_CHANGED, MIN_TASKS
from selfinstruct.command import table

_SHOWN = 5  # of items that are listed; the file has all of them


def describe(comparison: Comparison) -> str:
    """A comparison, and any further ones with the same base side by side, for people."""
    all_of_them = [comparison, *comparison.further]
    sections = [_heading(all_of_them)]
    sections.append(_side_by_side(all_of_them) if comparison.further else _table(_rows_of(comparison)))
    sections += filter(None, [_answers(all_of_them)])
    for one in all_of_them:
        sections += [f"Careful{_of(one, all_of_them)}: {warning}." for warning in one.warnings]
        sections.append(_of(one, all_of_them, "{}:\n") + "\n".join(_in_words(one)))
        if one.contamination:
            sections.append(_of(one, all_of_them, "{}: ") + _contaminated(one.contamination))
    sections += filter(None, [_unscored(all_of_them)])
    sections.append(_method(all_of_them))
    return "\n\n".join(sections)


def _of(one: Comparison, all_of_them: Sequence[Comparison], wording: str = " ({})") -> str:
    """Which comparison is meant, where there are several."""
    return wording.format(one.tuned) if len(all_of_them) > 1 else ""


def _heading(comparisons: Sequence[Comparison]) -> str:
    first = comparisons[0]
    tuned = "\n".join(f"tuned  {one.tuned}" for one in comparisons)
    return f"base   {first.base}\n{tuned}\n{first.n} items, compared pair by pair"


def _rows_of(comparison: Comparison) -> dict[str, Change]:
    return comparison.clusters | {f"all {metric}": change for metric, change in comparison.overall.items()}


def _table(changes: Mapping[str, Change]) -> str:
    header = ("cluster", "metric", "items", "base", "tuned", "delta", "95% interval", "p", "verdict")
    return table([header, *(_row(name, change) for name, change in changes.items())])


def _row(name: str, change: Change) -> tuple[str, ...]:
    p = "<0.001" if change.p < 0.001 else f"{change.p:.3f}"
    means = f"{change.base:.3f}", f"{change.tuned:.3f}", f"{change.delta:+.3f}"
    return (name, change.metric, str(change.n), *means, _interval(change), p, change.verdict)


def _interval(change: Difference) -> str:
    return "" if change.ci95 is None else f"{change.ci95[0]:+.3f} to {change.ci95[1]:+.3f}"


def _side_by_side(comparisons: Sequence[Comparison]) -> str:
    """A column for each evaluation: means, and of all but the first the difference from it and the verdict."""
    first = comparisons[0]
    names = _names(comparisons)
    rows: list[tuple[str, ...]] = [("cluster", "metric", "items", *names)]

    def add(name: str, changes: Sequence[Difference]) -> None:
        one = changes[0]
        rows.append((name, one.metric, str(one.n), f"{one.base:.3f}", *map(_cell, changes)))

    for name in first.clusters:
        add(name, [one.clusters[name] for one in comparisons])
        parts = {kind: clusters for kind, clusters in first.kinds.items() if name in clusters}
        if len(parts) > 1:
            for kind in parts:
                add(f"  {kind}", [one.kinds[kind][name] for one in comparisons])
    for metric in first.overall:
        add(f"all {metric}", [one.overall[metric] for one in comparisons])
    return f"{table(rows)}\nIn brackets: the difference from {names[0]}, with its verdict where there is one."


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    """Short names of all evaluations, the base first; whole paths where short ones would not tell them apart."""
    folders = [comparisons[0].base, *(one.tuned for one in comparisons)]
    names = [Path(folder).name for folder in folders]
    return names if len(set(names)) == len(set(folders)) else folders


def _cell(change: Difference) -> str:
    judged = change.verdict if isinstance(change, Change) and change.verdict != "no significant change" else ""
    return f"{change.tuned:.3f} ({f'{change.delta:+.3f} {judged}'.rstrip()})"


def _answers(comparisons: Sequence[Comparison]) -> str:
    """How generated answers were, by cluster and evaluation; nothing where none were generated."""
    first = comparisons[0]
    header = ("generated answers", "of", "n", "stopped", "cut", "empty", "off-format", "characters", "reference")
    rows: list[tuple[str, ...]] = []
    for cluster, change in first.clusters.items():
        answers = [change.answers.get("base"), *(one.clusters[cluster].answers.get("tuned") for one in comparisons)]
        for name, figures in zip(_names(comparisons), answers, strict=True):
            if figures:
                rows.append((
                    cluster, name, str(figures["generated"]), f"{figures['stop_rate']:.0%}",
                    str(figures["truncated"]), str(figures["empty"]), str(figures["off_format"]),
                    f"{figures['mean_answer_characters']:.0f}", f"{figures['mean_reference_characters']:.0f}",
                ))  # fmt: skip
    return table([header, *rows]) if rows else ""


def _in_words(comparison: Comparison) -> list[str]:
    """What got better, what worse, what cannot be told and why."""
    lines = []
    for wanted, label in (("better", "Better"), ("worse", "Worse")):
        named = [f"{name} ({c.delta:+.3f})" for name, c in comparison.clusters.items() if c.verdict == wanted]
        lines.append(f"{label}: {', '.join(named) or 'no cluster'}.")
    unclear = {name: c for name, c in comparison.clusters.items() if c.verdict == "no significant change"}
    if unclear:
        lines.append("No significant change, which is no proof of no change:")
        by_limits: dict[str, list[str]] = {}
        for name, change in unclear.items():
            by_limits.setdefault(_limits(change), []).append(name)
        lines += [f"  {', '.join(names)}: {limits}." for limits, names in by_limits.items()]
    return lines


def _limits(change: Change) -> str:
    """What so many items or tasks could and could not show."""
    effect, n_units = change.minimal_detectable_effect, change.n_tasks if change.unit == "task" else change.n
    asked = f"with {n_units} {change.unit}s"
    if effect is None:
        return f"{asked} no difference can be significant; at least {MIN_CHANGED} are needed"
    if change.p < ALPHA:
        return f"p is {change.p:.3f} by itself, which is not enough among so many clusters; more items would tell"
    if effect <= NOTABLE_EFFECT:
        return f"{asked} a difference of {effect:.2f} would mostly have been seen"
    more = "" if change.unit == "item" else " of further tasks"
    return (
        f"{asked} only differences above about {effect:.2f} are seen reliably; one of "
        f"{NOTABLE_EFFECT:.2f} would take at least about {change.items_needed} items{more}"
    )


def _contaminated(found: Contamination) -> str:
    """Which items the training data holds, and the scores without them."""
    searched = f"{found.rows} training rows of {', '.join(found.training_data)}"
    if not found.items:
        return f"No item is contaminated: none shares 13 tokens in a row with {searched}, or resembles one."
    listed = [f"  {overlap.item}: {overlap.reason}, {overlap.row}" for overlap in found.items[:_SHOWN]]
    if len(found.items) > _SHOWN:
        listed.append(f"  and {len(found.items) - _SHOWN} more, all in the JSON")
    parts = [f"Contaminated: {len(found.items)} items stand in {searched} too:", *listed]
    for label, changes in (("Clean items alone", found.clean), ("Contaminated items alone", found.contaminated)):
        parts += ["", f"{label}:", _table(changes) if changes else "  none, so there is no score"]
    return "\n".join(parts)


def _unscored(comparisons: Sequence[Comparison]) -> str:
    left_out = {folder: items for one in comparisons for folder, items in one.unscored.items()}
    lines = []
    for folder, items in left_out.items():
        listed = ", ".join([*list(items)[:_SHOWN], *(["..."] if len(items) > _SHOWN else [])])
        lines.append(f"{folder} left {len(items)} items out of its scores: {listed}.")
    return "\n".join(lines)


def _method(comparisons: Sequence[Comparison]) -> str:
    lines = _rows_of(comparisons[0])
    by_task = [name for name, change in lines.items() if change.unit == "task"]
    items = "it holds for further items of these tasks, not for other tasks"
    if not by_task:
        unit = f"All of it is by item, as no line has {MIN_TASKS} tasks: {items}."
    elif len(by_task) == len(lines):
        unit = f"All of it is by task, as every line has at least {MIN_TASKS}: it holds for further such tasks."
    else:
        unit = (
            f"By task where there are at least {MIN_TASKS} ({', '.join(by_task)}), so that it holds for further such "
            f"tasks;\nelsewhere by item: {items}."
        )
    return (
        "Interval: paired bootstrap. p: paired sign-flip test, the stricter of the two where few changed. Both are of\n"
        "each line by itself.\n"
        "Verdict: p after Holm's correction for all clusters together, and for all metrics together, so that chance\n"
        f"alone gives a false one in at most 5% of comparisons.\n{unit}"
    )
