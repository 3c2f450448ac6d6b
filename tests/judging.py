"""What the usual filters say, for tests: of an instruction by itself, and of instances by themselves."""

from __future__ import annotations

from selfinstruct.filters import Case
from selfinstruct.filters.union import USUAL
from selfinstruct.records import Candidate, Instance, Source, Verdict

SOURCE = Source("alpaca", "m", 0, "p", "c")


def _first(instruction: str, instances: tuple[Instance, ...], language: str, by_instruction: bool) -> Verdict | None:
    case = Case(Candidate("x", instruction, instances, False, SOURCE), language)
    filters = (f for f in USUAL if f.by_instruction == by_instruction)
    return next((verdict for f in filters if (verdict := f.judge(case))), None)


def judge_instruction(instruction: str, language: str = "en") -> Verdict | None:
    """The first objection to an instruction, in an empty pool."""
    return _first(instruction, (), language, by_instruction=True)


def judge_instances(instances: tuple[Instance, ...], language: str = "en") -> Verdict | None:
    """The first objection to the instances of a task whose instruction is fine."""
    return _first("Name a river of Asia.", instances, language, by_instruction=False)
