"""What both strategies that reproduce an original have in common."""

from __future__ import annotations

import abc
from typing import ClassVar

from pydantic import model_validator

from selfinstruct.strategies import Strategy


class WithOriginal(Strategy, abc.ABC):
    """A strategy that can work exactly as the published pipeline did, flaws included.

    Attributes:
        faithful: As the original; it fixes what else could be chosen.
        structured: Ask chat endpoints for lists in JSON, held to a schema where they can be.
    """

    fixed: ClassVar[tuple[str, ...]] = ("tasks_per_request", "replies_per_request", "structured")

    faithful: bool = False
    structured: bool = False

    @model_validator(mode="after")
    def _fixed_by_the_original(self) -> WithOriginal:
        changed = [name for name in self.fixed if getattr(self, name) != self.default(name)]
        if self.faithful and changed:
            raise ValueError(f"{self.kind}: faithful leaves no choice of {', '.join(changed)}")
        return self
