"""`finetune judge`: which of two evaluations' answers a judge prefers, each pair shown in both orders.

judge.toml          what was asked for; written first
ledger.sqlite       every request and reply; the same command resumes from it
judgements.jsonl    one object an item
summary.json        by cluster and overall; written last
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.predictions import Prediction, read_predictions
from finetune.statistics import Interval, Unit, Units, Verdict, holm, mean_interval, sign_flip_p, verdict
from selfinstruct.asking import EndpointConfig, ask_all
from selfinstruct.command import Config, table
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import (
    digest,
    read_json,
    read_toml,
    sha256_file,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)  # fmt: skip
from selfinstruct.ledger import only_process
from selfinstruct.progress import Progress
from selfinstruct.records import Completion, Prompt

RECORD, LEDGER, JUDGEMENTS, SUMMARY = "judge.toml", "ledger.sqlite", "judgements.jsonl", "summary.json"
ALL = "all"
_MAX_TOKENS = 200  # of a reason and the verdict
_VERDICT = re.compile(r"(?im)^\W*(?:verdict\W+)?(first|second|tie)\b")

# Tokens of a model's template mean nothing to the judge, or too much.
_SPECIAL = re.compile(r"<\|\w+\|>|</?s>")

_ASK = """\
Two assistants were given the same task. Say whose reply is better. What counts, in this order: the reply is right; it
does all that the task asks, and nothing else; it is clear. Length, tone and the order in which the replies stand here
count for nothing. Replies that are equally good, or equally bad, are a tie.

### Task
{prompt}
{references}
### First reply
{first}

### Second reply
{second}

### Your verdict
First line: one word, FIRST, SECOND or TIE. Then one sentence with the reason.
"""

Preference = Literal["base", "tuned", "tie"]


class _Options(Config):
    base: Path = Field(description="Evaluation that the other is compared with.")
    tuned: Path = Field(description="Evaluation of the same items.")
    out: Path = Field(description="Folder for the judgements; the same command resumes.")
    judge_model: str = Field(min_length=1, description="Who judges: the model's name at the endpoint.")
    show_references: bool = Field(True, description="Show the judge the reference answers.")
    limit: int | None = Field(None, ge=1, description="Judge the first so many items of each cluster.")


class JudgeConfig(EndpointConfig, _Options):
    """Which answers are compared, by whom."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge thought of one item's two answers; a line of judgements.jsonl.

    Attributes:
        orders: Preference with the base's answer first, and with the tuned model's first; None for a reply that says
            none.
        outcome: What both orders say: the preferred one, "tie", also where they contradict each other; None where
            either reply says nothing.
        score: 1 for the tuned model's answer, 0 for the base's, 0.5 for a tie; one order's tie weighs half.
        asked: False where both answers are the same, which is a tie without asking.
    """

    item: str
    task: str
    cluster: str
    prompt: str
    base: str
    tuned: str
    orders: tuple[Preference | None, Preference | None]
    outcome: Preference | None
    score: float | None
    asked: bool
    replies: tuple[str, ...] = ()


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WinRate(_Result):
    """How often a judge preferred the tuned model's answers; shares are 0 to 1, ties count half."""

    n: int
    wins: int
    losses: int
    ties: int
    contradictory: int = Field(description="Ties in which the two orders prefer different answers.")
    same_answers: int = Field(description="Ties since both answers are the same.")
    first_preferred: float | None = Field(description="Share of verdicts, ties aside, for the reply shown first.")
    win_rate: float
    ci95: Interval | None
    unit: Unit = Field(description="What interval and test are by: tasks where there are many, else items.")
    p: float = Field(description="Of a win rate of one half: sign-flip test.")
    p_holm: float = Field(description="p corrected for all clusters together; of all items, p itself.")
    verdict: Verdict
    mean_characters: tuple[float, float] = Field(description="Of the base's and the tuned model's answers.")


class JudgeSummary(_Result):
    """What a judge thought of two evaluations."""

    base: str
    tuned: str
    judge_model: str
    n: int
    overall: WinRate
    clusters: dict[str, WinRate]
    unjudged: int
    unjudged_items: list[str]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def judge(config: JudgeConfig) -> JudgeSummary:
    """Let a judge compare the generated answers of two evaluations, pair by pair and in both orders.

    The judge sees each pair twice, with either answer first; an answer wins if it is preferred in both, or in one while
    the other is a tie. Requests go through a ledger and a budget like those of `selfinstruct generate`.

    Returns:
        The summary as it stands in summary.json.

    Raises:
        InputError: When a folder holds no finished evaluation, or they hold different items.
        UsageError: When --out holds something else or other settings, or no answer was generated.
        CapReached, StoppedEarly, AuthenticationError, Interrupted: Replies so far are kept.
    """
    pairs = _pairs(config)
    identity = {
        "judge_model": config.judge_model,
        "endpoint": config.url,
        "base": sha256_file(config.base / "predictions.jsonl"),
        "tuned": sha256_file(config.tuned / "predictions.jsonl"),
        "show_references": config.show_references,
        "limit": config.limit or "none",
    }
    if finished := _finished(config.out, identity):
        return finished
    config.out.mkdir(parents=True, exist_ok=True)
    write_text(config.out / RECORD, to_toml({"config": config.model_dump(mode="json"), "identity": identity}))

    differing = [pair for pair in pairs if pair[0].prediction != pair[1].prediction]
    prompts = [
        _prompt(base, answers, config.show_references)
        for base, tuned in differing
        for answers in ((base.prediction, tuned.prediction), (tuned.prediction, base.prediction))
    ]
    replies: dict[int, str] = {}
    with Progress("judgement", len(prompts)) as shown:

        def receive(index: int, completion: Completion) -> None:
            replies[index] = completion.text
            shown.update(len(replies), "")

        ledger = config.out / LEDGER
        numbered = dict(enumerate(prompts))
        with only_process(config.out):
            spent = ask_all(config, config.judge_model, "chat", ledger, digest(identity), numbered, receive)
    of_item = {base.item: (replies[2 * n], replies[2 * n + 1]) for n, (base, _) in enumerate(differing)}
    judgements = [_judgement(base, tuned, of_item.get(base.item)) for base, tuned in pairs]
    judged = [judgement for judgement in judgements if judgement.score is not None]
    if not judged:
        raise UsageError(f"{config.judge_model} gave no verdict on any of {len(judgements)} pairs; try another judge")
    summary = JudgeSummary(
        base=str(config.base), tuned=str(config.tuned), judge_model=config.judge_model, n=len(judged),
        overall=_win_rates({ALL: judged})[ALL], clusters=_win_rates(_by_cluster(judged)),
        unjudged=len(judgements) - len(judged), unjudged_items=[j.item for j in judgements if j.score is None],
        requests=spent.requests, prompt_tokens=spent.prompt_tokens, completion_tokens=spent.completion_tokens,
        cost_usd=spent.cost_usd,
    )  # fmt: skip
    write_jsonl(config.out / JUDGEMENTS, map(asdict, judgements))
    write_json(config.out / SUMMARY, summary.model_dump(mode="json"))
    return summary


def _pairs(config: JudgeConfig) -> list[tuple[Prediction, Prediction]]:
    """The generated answers to the same items, by base and tuned model."""
    base, tuned = read_predictions(config.base), read_predictions(config.tuned)
    if base.keys() != tuned.keys():
        raise InputError(
            f"holds other items than {config.base}", path=config.tuned, remedy="evaluate both on the same tasks"
        )
    pairs = [(prediction, tuned[item]) for item, prediction in base.items()]
    if differing := [item for item, other in pairs if item.references != other.references]:
        raise InputError(
            f"{len(differing)} items have other references than in {config.base}, '{differing[0].item}' among them",
            path=config.tuned, remedy="evaluate both on the same tasks",
        )  # fmt: skip
    generated = [(one, other) for one, other in pairs if not one.option_scores and not other.option_scores]
    if not generated:
        raise UsageError(
            f"{config.base} and {config.tuned} hold no generated answer; options that were ranked need no judge"
        )
    seen: Counter[str] = Counter()
    kept = []
    for pair in generated:
        seen[pair[0].cluster] += 1
        if config.limit is None or seen[pair[0].cluster] <= config.limit:
            kept.append(pair)
    return kept


def _finished(out: Path, identity: Mapping[str, Any]) -> JudgeSummary | None:
    """The summary of a finished judgement with the same settings; None for an unfinished or a new one."""
    if not (out / RECORD).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"--out {out} holds other files; give a new or an empty folder")
        return None
    before = read_toml(out / RECORD).get("identity", {})
    if changed := [key for key in identity if before.get(key) != identity[key]]:
        raise UsageError(f"{out} holds a judgement with other settings ({', '.join(changed)}); give another --out")
    summary = out / SUMMARY
    return validate(JudgeSummary, read_json(summary), path=summary) if summary.exists() else None


def _prompt(base: Prediction, answers: tuple[str, str], show_references: bool) -> Prompt:
    references = "\n".join(f"- {reference}" for reference in base.references)
    shown = f"\n### Right answers, in any of these words\n{references}\n" if show_references else ""
    first, second = (answer or "(no reply)" for answer in answers)
    text = _ASK.format(prompt=_SPECIAL.sub("", base.prompt).strip(), references=shown, first=first, second=second)
    return Prompt(({"role": "user", "content": text},), max_tokens=_MAX_TOKENS, temperature=0.0)


def read_verdict(reply: str) -> Literal["first", "second", "tie"] | None:
    """The verdict in a judge's reply: the first line that begins with one of the three words; None without any."""
    found = _VERDICT.search(reply)
    return found[1].lower() if found else None  # type: ignore[return-value]


_MEANING: tuple[dict[str, Preference], dict[str, Preference]] = (
    {"first": "base", "second": "tuned", "tie": "tie"},
    {"first": "tuned", "second": "base", "tie": "tie"},
)
_SHOWN_FIRST: tuple[Preference, Preference] = ("base", "tuned")
_VALUE: dict[Preference, float] = {"base": 0.0, "tie": 0.5, "tuned": 1.0}


def _judgement(base: Prediction, tuned: Prediction, replies: tuple[str, str] | None) -> Judgement:
    orders: tuple[Preference | None, Preference | None] = ("tie", "tie")
    if replies is not None:
        verdicts = map(read_verdict, replies)
        first, second = (
            meaning[verdict] if verdict else None for meaning, verdict in zip(_MEANING, verdicts, strict=True)
        )
        orders = (first, second)
    score = None if None in orders else fmean(_VALUE[order] for order in orders if order)
    outcome: Preference | None = None
    if score is not None:
        outcome = "tie" if score == _VALUE["tie"] else "tuned" if score > _VALUE["tie"] else "base"
    return Judgement(
        base.item, base.task, base.cluster, base.prompt, base.prediction, tuned.prediction, orders, outcome, score,
        asked=replies is not None, replies=replies or (),
    )  # fmt: skip


def _by_cluster(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.cluster, []).append(judgement)
    return groups


def _win_rates(groups: Mapping[str, Sequence[Judgement]]) -> dict[str, WinRate]:
    """The win rate of each group; the groups are one family of tests."""
    scores = {name: _units(group, chance=0) for name, group in groups.items()}
    p_values = [sign_flip_p(_units(group, chance=0.5)) for group in groups.values()]
    return {
        name: _win_rate(groups[name], values, p, p_holm)
        for (name, values), p, p_holm in zip(scores.items(), p_values, holm(p_values), strict=True)
    }


def _units(group: Sequence[Judgement], *, chance: float) -> Units:
    """Scores above chance."""
    judged = [(j.score - chance, j.task) for j in group if j.score is not None]
    return Units.of([score for score, _ in judged], [task for _, task in judged])


def _win_rate(group: Sequence[Judgement], scores: Units, p: float, p_holm: float) -> WinRate:
    outcomes = Counter(judgement.outcome for judgement in group)
    asked = [judgement for judgement in group if judgement.asked]
    # With the base's answer first, "base" is a verdict for the first reply; in the other order it is "tuned".
    first = [
        order == shown for j in asked for order, shown in zip(j.orders, _SHOWN_FIRST, strict=True) if order != "tie"
    ]
    return WinRate(
        n=len(group),
        wins=outcomes["tuned"],
        losses=outcomes["base"],
        ties=outcomes["tie"],
        contradictory=sum(set(judgement.orders) == {"base", "tuned"} for judgement in asked),
        same_answers=len(group) - len(asked),
        first_preferred=fmean(first) if first else None,
        win_rate=scores.mean,
        ci95=mean_interval(scores),
        unit=scores.unit,
        p=p,
        p_holm=p_holm,
        verdict=verdict(scores.mean - 0.5, p_holm),
        mean_characters=(fmean(len(j.base) for j in group), fmean(len(j.tuned) for j in group)),
    )


def describe(summary: JudgeSummary) -> str:
    """Win rates for people."""
    header = ("cluster", "items", "wins", "losses", "ties", "win rate", "95% interval", "p", "verdict")
    groups = [*summary.clusters.items(), (ALL, summary.overall)]
    rows = [
        (name, str(w.n), str(w.wins), str(w.losses), str(w.ties), f"{w.win_rate:.3f}",
         "" if w.ci95 is None else f"{w.ci95[0]:.3f} to {w.ci95[1]:.3f}", f"{w.p:.3f}", w.verdict)
        for name, w in groups
    ]  # fmt: skip
    overall = summary.overall
    characters = " and ".join(f"{n:.0f}" for n in overall.mean_characters)
    cost = "cost unknown" if summary.cost_usd is None else f"{summary.cost_usd:.4f} USD"
    lines = [
        f"base   {summary.base}\ntuned  {summary.tuned}\n{summary.n} items judged by {summary.judge_model}",
        table([header, *rows]),
        f"Win rate: share of items whose answer by the tuned model is preferred, ties half. {overall.contradictory} "
        f"ties are contradictions between the two orders, {overall.same_answers} are equal answers. Mean length of the "
        f"answers: {characters} characters.",
        "Verdict: p after Holm's correction for all clusters together; it is this judge's taste, for items like these.",
        f"{summary.requests} requests, {cost}.",
    ]
    if overall.first_preferred is not None:
        lines[2] += f" The reply shown first was preferred in {overall.first_preferred:.0%} of verdicts."
    if summary.unjudged:
        lines.append(f"{summary.unjudged} items have no verdict; the first is {summary.unjudged_items[0]}.")
    return "\n\n".join(lines)
