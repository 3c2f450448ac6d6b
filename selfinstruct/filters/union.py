"""All filters there are, and those of a usual run in their order: cheap ones first."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Discriminator

from selfinstruct.filters.answer import Answer
from selfinstruct.filters.contamination import Contamination
from selfinstruct.filters.duplicate import Duplicate
from selfinstruct.filters.format import Format
from selfinstruct.filters.judge import Judge
from selfinstruct.filters.keyword import Keyword
from selfinstruct.filters.language import Language
from selfinstruct.filters.length import Length
from selfinstruct.filters.missing_input import MissingInput
from selfinstruct.filters.novelty import Novelty
from selfinstruct.filters.originals import AlpacaHeuristics, SelfInstructHeuristics
from selfinstruct.filters.personal_data import PersonalData
from selfinstruct.filters.program import Program
from selfinstruct.filters.refusal import Refusal
from selfinstruct.filters.repetition import Repetition
from selfinstruct.filters.start import Start
from selfinstruct.filters.tools import Tools
from selfinstruct.specs import read_spec

AnyFilter = Annotated[
    Length
    | Keyword
    | Tools
    | Program
    | Start
    | Answer
    | Format
    | MissingInput
    | Refusal
    | Repetition
    | PersonalData
    | Language
    | Contamination
    | Duplicate
    | Novelty
    | Judge
    | SelfInstructHeuristics
    | AlpacaHeuristics,
    Discriminator("kind"),
    BeforeValidator(read_spec),
]
USUAL: tuple[AnyFilter, ...] = (
    Length(), Keyword(), Tools(), Program(), Start(), Answer(), Format(), MissingInput(), Refusal(), Repetition(),
    PersonalData(), Language(), Duplicate(), Novelty(),
)  # fmt: skip
