"""All strategies there are."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Discriminator

from selfinstruct.specs import read_spec
from selfinstruct.strategies.alpaca import Alpaca
from selfinstruct.strategies.attributed import Attributed
from selfinstruct.strategies.evol_instruct import EvolInstruct
from selfinstruct.strategies.self_instruct import SelfInstruct

AnyStrategy = Annotated[
    SelfInstruct | Alpaca | EvolInstruct | Attributed, Discriminator("kind"), BeforeValidator(read_spec)
]
