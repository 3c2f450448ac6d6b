"""All filters there are, and those of a usual run in their order: cheap ones first."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Discriminator

from selfinstruct.filters.answer import Answer
from selfinstruct.filters.duplicate import Duplicate
from selfinstruct.filters.judge import Judge
from selfinstruct.filters.keyword import Keyword
from selfinstruct.filters.length import Length
from selfinstruct.filters.novelty import Novelty
from selfinstruct.filters.program import Program
from selfinstruct.filters.repetition import Repetition
from selfinstruct.filters.start import Start
from selfinstruct.specs import read_spec

AnyFilter = Annotated[
    Length | Keyword | Program | Start | Answer | Repetition | Duplicate | Novelty | Judge,
    Discriminator("kind"),
    BeforeValidator(read_spec),
]
USUAL: tuple[AnyFilter, ...] = (
    Length(), Keyword(), Program(), Start(), Answer(), Repetition(), Duplicate(), Novelty(),
)  # fmt: skip
