"""Figures and verdicts in words, as the report page says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfinstruct.results import Change, Comparison, RunFigures, Training

RULES = {
    "contamination": "resembles a held-out task",
    "contradictory": "the same input with different answers",
    "copied_prompt": "repeats words of the prompt",
    "duplicate": "stands there already, letter for letter",
    "empty_output": "has no answer",
    "format": "broken off, or labels left in it",
    "incomplete": "ends with a colon, so something is missing",
    "input_is_output": "the answer repeats the input",
    "judge": "the judge thinks little of it",
    "keyword": "asks for something that a text model cannot see or make",
    "language": "instruction or answer is not in the language of the run",
    "missing_input": "speaks of a text that is not there",
    "no_content": "the answer says nothing",
    "no_gain": "asks for the same as the task that it was made from",
    "no_instruction": "a block without an instruction",
    "not_completed": "was rejected before its answer was asked for",
    "novelty": "too similar to a task that is already there",
    "personal_data": "holds an address, a phone or a card number",
    "program": "asks to write a program",
    "punctuation": "starts with punctuation",
    "refusal": "the answer refuses, or speaks of being a model",
    "repetition": "the answer turns in circles",
    "surplus": "more than were asked for",
    "target_reached": "fine, but no longer needed",
    "tools": "needs tools, eyes or ears",
    "too_long": "the instruction has too many words",
    "too_short": "the instruction has too few words",
    "unjudged": "the judge gave no grade",
    "truncated": "was cut off at the token limit",
    "unparsable": "the reply could not be read as a task",
}
CLOSED_BY = {
    "pilot": "The pilot has what it wanted; the run can be gone on with.",
    "refiltered": "The candidates of another run were judged again.",
    "saturated": "The run stopped when hardly any candidate was new any more.",
    "cap": "The run stopped at its cap on cost or requests and can be resumed.",
    "outage": "The run stopped because the endpoint could no longer be reached; it can be resumed.",
    "interrupted": "The run was interrupted and can be resumed.",
    "running": "The run has not ended; these are the figures so far.",
}
METRICS = {
    "exact_match": "exact match", "rouge_l": "ROUGE-L", "token_f1": "token F1", "regex": "regular expression",
    "json_schema": "JSON schema", "option_match": "option named", "accuracy_per_token": "accuracy (per token)",
    "accuracy_per_character": "accuracy (per character)",
}  # fmt: skip
DROPPED = {
    "all_masked": "holds nothing to learn",
    "contaminated": "a held-out task has it too",
    "empty_instruction": "has no instruction",
    "empty_output": "has no answer",
    "eos_in_output": "holds the token that ends answers",
    "in_eval_data": "is among the rows kept out for evaluation",
    "several_turns": "the template has no place for further turns",
    "system_message": "the template has no place for a system message",
    "too_long": "has more tokens than were allowed",
}
# After `finetune compare`: p below which a change is more than chance, and a change worth speaking of.
ALPHA, NOTABLE_EFFECT = 0.05, 0.05


def meaning(rule: str) -> str:
    """What a rule that rejected a candidate stands for; "" for one that is not known here."""
    return RULES.get(rule, "")


def place(path: str) -> str:
    """Where a row was read: file and folder, since the rest of a path says more of a machine than of the row."""
    return "/".join(path.split("/")[-2:])


def model(folder: str) -> str:
    """What an evaluation is called, after its folder; `selfinstruct run` makes evaluate-base and evaluate-tuned."""
    return folder.removeprefix("evaluate-")


def metric(name: str) -> str:
    """What people call a metric, or several that are joined."""
    return " + ".join(METRICS.get(one, one) for one in name.split(" + "))


# -- the paragraph that comes first ------------------------------------------------------------------------------------


def answer(figures: RunFigures | None, training: Training | None, compared: Comparison | None) -> Iterator[str]:
    """What came of it all, sentence by sentence."""
    if figures and figures.candidates:
        yield (
            f"Of {figures.candidates:,} candidate tasks {figures.accepted:,} were accepted "
            f"({figures.accepted / figures.candidates:.0%}), in {duration(figures.elapsed_s)}; "
            f"{_cost(figures.cost_usd)}."
        )
    if figures and figures.closed_by != "target":
        yield CLOSED_BY.get(figures.closed_by, "The run ended before its target.")
    if training and training.figures:
        before, after = training.figures.eval_loss_before, training.figures.eval_loss
        loss = f"the training loss was {training.figures.train_loss:.3f} on average"
        if before is not None and after is not None:
            loss = f"the loss on held-back rows went from {before:.3f} to {after:.3f}"
        yield f"A model was fine-tuned on {training.figures.rows_used:,} rows; {loss}."
    for comparison in [compared, *compared.further] if compared else []:
        yield from _gained(comparison, bool(compared and compared.further))


def _gained(compared: Comparison, named: bool) -> Iterator[str]:
    """What an evaluation shows beside its base, with its name where there are several."""
    for name, change in compared.overall.items():
        whose = f"the {metric(name)} of {model(compared.names[1])}" if named else f"its {metric(name)}"
        yield (
            f"On {change.n:,} held-out items {whose} went from {points(change.base)} to {points(change.tuned)} "
            f"({_difference(change)}): {change.verdict}."
        )
    changed = {
        verdict: [name for name, change in compared.clusters.items() if change.verdict == verdict]
        for verdict in ("better", "worse")
    }
    for verdict, names in changed.items():
        if names:
            yield f"It got {verdict} on {enumeration(names)}."
    if not any(changed.values()):
        yield "On no single cluster of held-out tasks is the change larger than chance would explain."


def limits(change: Change) -> str:
    """What a change without a verdict could and could not have shown; after `finetune compare`."""
    if change.verdict in ("better", "worse"):
        return ""
    effect = change.minimal_detectable_effect
    if effect is None:
        return "too few items for any change to be told from chance"
    if change.p is not None and change.p < ALPHA:
        return f"p is {change.p:.3f} by itself, which is not enough among so many clusters"
    if effect <= NOTABLE_EFFECT:
        return f"a change of {points(effect)} would mostly have been seen"
    return f"changes below {points(effect)} are easily missed"


def variety(diversity: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(measure, of the data set, of the seeds) for what `diversity.Diversity` holds, as summary.json has it."""
    for kind in ("instructions", "outputs"):
        for name, label, show in (
            ("distinct_1", f"distinct words in {kind}", _share),
            ("distinct_2", f"distinct pairs of words in {kind}", _share),
            ("self_repetition", f"{kind} that repeat four words of another", _share),
            ("compression_ratio", f"compression of {kind} (higher repeats more)", _number),
        ):
            found = (diversity.get(kind) or {}).get(name) or {}
            if found.get("dataset") is not None:
                yield label, show(found["dataset"]), show(found.get("seeds"))
    openings = diversity.get("openings") or {}
    if openings.get("dataset") is not None:
        yield "distinct first words of instructions", _share(openings["dataset"]), _share(openings.get("seeds"))
    without = [(diversity.get(which) or {}).get("without_input") for which in ("dataset", "seeds")]
    if without[0] is not None:
        yield "tasks without an input", _share(without[0]), _share(without[1])


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _cost(amount: float | None) -> str:
    if amount is None:
        return "the cost is unknown"
    return f"the teacher cost {usd(amount)}" if amount else "the teacher cost nothing"


def _difference(change: Change) -> str:
    interval = f", 95% interval {signed(change.ci95[0])} to {signed(change.ci95[1])}" if change.ci95 else ""
    return f"{signed(change.delta)} points{interval}"


def enumeration(names: Sequence[str]) -> str:
    """Names as in "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# -- numbers -----------------------------------------------------------------------------------------------------------


def count(n: float) -> str:
    """A whole number with its thousands apart."""
    return f"{n:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share in percent; "0%" of nothing."""
    return f"{100 * part / whole if whole else 0:.1f}%"


def points(score: float) -> str:
    """A score of 0 to 1 in points of a hundred."""
    return f"{100 * score:.1f}"


def signed(score: float) -> str:
    """A difference of scores in points, with its sign."""
    return f"{100 * score:+.1f}".replace("-", "\N{MINUS SIGN}")


def usd(amount: float | None) -> str:
    """US dollars, or "unknown"."""
    if amount is None:
        return "unknown"
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
