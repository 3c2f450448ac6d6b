"""What an index answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NOBODY = np.iinfo(np.int64).max  # in the place of an id, so that every id is smaller


class Match(NamedTuple):
    """A text of the pool by its position, and its ROUGE-L F-measure (0 to 1) with a candidate."""

    position: int
    score: float


class Matches(NamedTuple):
    """The best matches of candidates, by (F descending, position ascending).

    Attributes:
        scores: float64[candidates, k], 0 where no further text has a token in common.
        positions: int64[candidates, k], `NOBODY` there.
    """

    scores: NDArray[np.float64]
    positions: NDArray[np.int64]

    @classmethod
    def none(cls, n: int, k: int) -> Matches:
        """For so many candidates, before anything is compared."""
        return cls(np.zeros((n, k)), np.full((n, k), NOBODY))

    def part(self, candidates: slice) -> Matches:
        """Those of some candidates; the same memory."""
        return Matches(self.scores[candidates], self.positions[candidates])

    def of(self, candidate: int) -> tuple[Match, ...]:
        """Those of one candidate."""
        pairs = zip(self.positions[candidate].tolist(), self.scores[candidate].tolist(), strict=True)
        return tuple(Match(position, score) for position, score in pairs if score > 0)


class Judged(NamedTuple):
    """Decisions on candidates, each made after those before it.

    Attributes:
        accepted: bool[candidates].
        matches: With the pool as it stood when the candidate's turn came.
    """

    accepted: NDArray[np.bool_]
    matches: Matches
