"""A training row token by token: what each token says, and whether it is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from finetune.encoding import TrainingRow

Label = Literal["given", "learnt"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a row.

    Attributes:
        text: What it decodes to; the tokenizer's own name for it where that is only part of a character.
        special: Whether it is one of the tokenizer's special tokens.
    """

    id: int
    text: str
    label: Label
    special: bool


@dataclass(frozen=True, slots=True)
class InspectedRow:
    """A row, and where it was read."""

    place: str
    tokens: tuple[Token, ...]


def inspected(row: TrainingRow, tokenizer: Any) -> InspectedRow:
    """A row with its tokens in words.

    Args:
        row: As encoded by this tokenizer.
        tokenizer: A `PreTrainedTokenizerBase`.
    """
    special = set(tokenizer.all_special_ids) | {
        id for id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    learnt = {position for begin, end in row.spans for position in range(begin, end)}
    return InspectedRow(
        row.place,
        tuple(
            Token(id, _text(tokenizer, id), "learnt" if position in learnt else "given", id in special)
            for position, id in enumerate(row.input_ids)
        ),
    )


def _text(tokenizer: Any, id: int) -> str:
    text = str(tokenizer.decode([id]))
    return str(tokenizer.convert_ids_to_tokens(id)) if "\N{REPLACEMENT CHARACTER}" in text else text
