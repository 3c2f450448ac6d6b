"""Which rows are written where there are more than wanted: those whose places, drawn by content, are the smallest."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from selfinstruct.templating.drafts import Draft

# A place among all rows: pseudo-random by content, then the number of the row, in which two with one content differ.
Place = tuple[int, int]


class _Smallest:
    """The k smallest of the places that were added."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._largest_first: list[Place] = []

    def add(self, place: Place) -> None:
        negative = (-place[0], -place[1])
        if len(self._largest_first) < self._k:
            heapq.heappush(self._largest_first, negative)
        else:
            heapq.heappushpop(self._largest_first, negative)

    def __contains__(self, place: Place) -> bool:
        return len(self._largest_first) < self._k or (-place[0], -place[1]) >= self._largest_first[0]


class Caps:
    """At most so many rows of a data set and of a template: those whose places are the smallest.

    Since both caps take the smallest, the one leaves out nothing that the other would have put in its place.

    Args:
        max_rows: Of a data set; 0 for no cap.
        per_template_max: Of a template; None for no cap.
    """

    def __init__(self, max_rows: int, per_template_max: int | None) -> None:
        self._max_rows, self._per_template_max = max_rows, per_template_max
        self._rows: dict[str, _Smallest] = defaultdict(lambda: _Smallest(max_rows))
        self._templates: dict[tuple[str, str], _Smallest] = defaultdict(lambda: _Smallest(per_template_max or 0))

    def may_bind(self, n_rows: int) -> bool:
        """Whether so many rows could be too many, so that all have to be counted first."""
        return self._per_template_max is not None or 0 < self._max_rows < n_rows

    def add(self, place: Place, drafts: Sequence[Draft]) -> None:
        """Count a row."""
        if self._max_rows:
            self._rows[drafts[0].dataset].add(place)
        if self._per_template_max:
            for draft in drafts:
                self._templates[draft.dataset, draft.template].add(place)

    def allow_row(self, place: Place, draft: Draft) -> bool:
        """Whether the row that this is a draft of is among those of its data set."""
        return not self._max_rows or place in self._rows[draft.dataset]

    def allow_draft(self, place: Place, draft: Draft) -> bool:
        """Whether it is among those in its template."""
        return self._per_template_max is None or place in self._templates[draft.dataset, draft.template]
