"""Which filters a run has: the usual ones, but for those left out, with the options given; further ones after them."""

from __future__ import annotations

from collections.abc import Sequence

from selfinstruct.errors import UsageError
from selfinstruct.filters import Filter
from selfinstruct.filters.answer import Answer
from selfinstruct.filters.novelty import Novelty
from selfinstruct.filters.originals import AlpacaHeuristics, SelfInstructHeuristics
from selfinstruct.filters.union import USUAL

# The originals' own; that an answer has to be there is this project's addition: no reader takes a row without one.
FAITHFUL: dict[str, tuple[Filter, ...]] = {
    "self-instruct": (SelfInstructHeuristics(), Answer(), Novelty()),
    "alpaca": (AlpacaHeuristics(), Answer(), Novelty()),
}


def selected(
    given: Sequence[Filter], without: Sequence[str], novelty_threshold: float, faithful: str | None = None
) -> tuple[Filter, ...]:
    """The filters in the order of judgement.

    Args:
        faithful: The strategy that goes as its original, whose filters are then the usual ones.
        given: With options of their own; take the place of a usual one of the same kind, or come last.
        without: Kinds of usual ones that are left out.
        novelty_threshold: Of the usual novelty filter.

    Raises:
        UsageError: For a kind that is no usual one.
    """
    usual: dict[str, Filter] = {str(f.kind): f for f in (FAITHFUL[faithful] if faithful else USUAL)}
    usual["novelty"] = Novelty(threshold=novelty_threshold)
    if unknown := set(without) - set(usual):
        raise UsageError(f"--without: '{unknown.pop()}' is no usual filter; those are {', '.join(usual)}")
    chosen = usual | {str(f.kind): f for f in given}
    return tuple(f for kind, f in chosen.items() if kind not in without)
