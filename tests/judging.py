"""What filters say, for tests: the usual ones of an instruction by itself and of instances, or one of a whole task."""

from __future__ import annotations

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.union import USUAL
from selfinstruct.records import Candidate, Example, Instance, Source, Verdict

SOURCE = Source("alpaca", "m", 0, "p", "c")


def case_of(instruction: str, instances: tuple[Instance, ...] = (), language: str = "en") -> Case:
    """A candidate in an empty pool."""
    return Case(Candidate("x", instruction, instances, False, SOURCE), language)


def judge_instruction(instruction: str, language: str = "en") -> Verdict | None:
    """The first objection to an instruction, in an empty pool."""
    case = case_of(instruction, language=language)
    return next((verdict for f in USUAL if f.by_instruction and (verdict := f.judge(case))), None)


def judge_instances(
    instances: tuple[Instance, ...], language: str = "en", instruction: str = "Name a river of Asia."
) -> Verdict | None:
    """The first objection to the instances of a task whose instruction is fine."""
    case = case_of(instruction, instances, language)
    return next((verdict for f in USUAL if (verdict := f.judge(case))), None)


def rule_of(
    one: Filter, instruction: str, output: str = "An answer.", input: str = "", language: str = "en"
) -> str | None:
    """The rule by which one filter rejects a task with one instance; None where it has no objection."""
    verdict = one.judge(case_of(instruction, (Instance(input, output),), language))
    return verdict.rule if verdict else None


def judge_example(example: Example, language: str = "en") -> Verdict | None:
    """The first objection to a whole task, in an empty pool."""
    case = Case(Candidate("x", example.instruction, example.instances, False, SOURCE), language)
    return next((verdict for f in USUAL if (verdict := f.judge(case))), None)
