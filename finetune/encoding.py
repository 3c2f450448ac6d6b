"""From rows to tokens: renders, tokenises, and marks what is learnt; what cannot be learnt is counted, never cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from finetune.sources import ChatRow, Row
from selfinstruct.errors import InputError, UsageError
from selfinstruct.render import Exchange, Renderer

# The ignore_index of torch.nn.functional.cross_entropy.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One row as tokens: what is given, and the answers in it, which alone are learnt.

    Attributes:
        input_ids: Shape (seq).
        spans: (begin, end) in input_ids of each answer, its end-of-sequence token included, in order.
        place: Where it was read, for messages.
    """

    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    place: str = field(default="", compare=False)

    @property
    def supervised_tokens(self) -> int:
        """Tokens of the answers, their end-of-sequence tokens included."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def labels(self) -> list[int]:
        """input_ids where they are learnt, IGNORED elsewhere, shape (seq)."""
        labels = [IGNORED] * len(self.input_ids)
        for begin, end in self.spans:
            labels[begin:end] = self.input_ids[begin:end]
        return labels


def encode(
    rows: Sequence[Row],
    renderer: Renderer,
    tokenizer: Any,
    max_length: int,
    kept_out: Iterable[str] = (),
) -> tuple[list[TrainingRow], dict[str, int]]:
    """Turn rows into tokens, each with the places of its answers.

    Args:
        rows: As read.
        renderer: Of this tokenizer.
        tokenizer: A `PreTrainedTokenizerBase`.
        max_length: Most tokens of a row.
        kept_out: Questions (`Row.question`) of evaluation rows, which must not be trained on.

    Returns:
        The rows that can be used, and how many were dropped for each reason: "empty_instruction", "empty_output",
        "in_eval_data", "system_message" and "several_turns" (the template has no place for them), "eos_in_output" (the
        text holds the end-of-sequence token), "all_masked" (no token to learn) and "too_long".

    Raises:
        InputError: When the tokens of a prompt cannot be made the first tokens of the whole row, or the template
            writes earlier turns anew; what is learnt would then not follow what the model is given later.
        UsageError: When the tokenizer does not know its own end-of-sequence token.
    """
    dropped: Counter[str] = Counter()
    excluded = frozenset(kept_out)
    # Longer texts are too long whatever they say, and need not be tokenised.
    most_characters = max_length * max(map(len, tokenizer.get_vocab()))
    usable: list[tuple[Row, Sequence[Exchange]]] = []
    for row in rows:
        if reason := _unusable(row, renderer, excluded):
            dropped[reason] += 1
            continue
        exchanges = _exchanges(row, renderer)
        if sum(len(exchange.prompt) + len(exchange.answer) for exchange in exchanges) > most_characters:
            dropped["too_long"] += 1
        else:
            usable.append((row, exchanges))
    tokenised = list(_tokenised(usable, tokenizer))
    _check_turns(usable, tokenised, tokenizer)
    encoded = []
    for training_row in tokenised:
        if reason := _unlearnable(training_row, tokenizer.eos_token_id, max_length):
            dropped[reason] += 1
        else:
            encoded.append(training_row)
    return encoded, dict(dropped)


def _unusable(row: Row, renderer: Renderer, kept_out: frozenset[str]) -> str | None:
    """Why a row as it stands in the file cannot be trained on."""
    if not all(text.strip() for text in row.asked):
        return "empty_instruction"
    if not all(text.strip() for text in row.answers):
        return "empty_output"
    if row.question in kept_out:
        return "in_eval_data"
    if isinstance(row, ChatRow) and not renderer.takes_conversations:
        if row.messages[0]["role"] == "system":
            return "system_message"
        if len(row.messages) > 2:
            return "several_turns"
    return None


def _exchanges(row: Row, renderer: Renderer) -> Sequence[Exchange]:
    try:
        if isinstance(row, ChatRow):
            return renderer.exchanges(row.messages)
        return [
            Exchange(
                renderer.prompt(row.instruction, row.input),
                renderer.completion(row.instruction, row.input, row.output),
            )
        ]
    except InputError:
        raise
    except UsageError as error:
        raise InputError(str(error), path=row.place) from error


def _tokenised(rows: Sequence[tuple[Row, Sequence[Exchange]]], tokenizer: Any) -> Iterator[TrainingRow]:
    """Tokens of each row, all exchanges in one batch.

    An exchange after another is tokenised behind an end-of-sequence token, which is then taken off: as in the row as a
    whole, its text does not stand at the beginning, where some tokenizers put a space.
    """
    before = ["" if i == 0 else tokenizer.eos_token for _, exchanges in rows for i in range(len(exchanges))]
    flat = [exchange for _, exchanges in rows for exchange in exchanges]
    prompts = [text + exchange.prompt for text, exchange in zip(before, flat, strict=True)]
    prompt_ids = _ids(tokenizer, prompts)
    whole_ids = _ids(tokenizer, [text + e.answer for text, e in zip(prompts, flat, strict=True)])
    parts = iter(zip(before, flat, prompt_ids, whole_ids, strict=True))
    for row, exchanges in rows:
        input_ids: list[int] = []
        spans = []
        for text, exchange, given, whole in islice(parts, len(exchanges)):
            n_before = 1 if text else 0
            if n_before and given[0] != tokenizer.eos_token_id:
                raise _unknown_eos()
            if whole[: len(given)] != given:
                whole = _joined(tokenizer, given, exchange.answer, whole, row.place)
            begin = len(input_ids) + len(given) - n_before
            input_ids += whole[n_before:]
            spans.append((begin, len(input_ids)))
        yield TrainingRow(tuple(input_ids), tuple(spans), row.place)


def _joined(tokenizer: Any, prompt_ids: list[int], completion: str, whole: list[int], place: str) -> list[int]:
    """Tokens of prompt and completion, each by itself, for a row whose text has no token boundary between them.

    In "### Response:- one" a tokenizer may read ":-" as one token. What a model is given later is the prompt alone,
    which ends with ":", so the answer that follows has to start with "-" in training too.

    Raises:
        InputError: When the parts do not add up to the text of the whole, as with tokenizers that put a space before
            every text.
    """
    ids = [*prompt_ids, *_ids(tokenizer, [completion])[0]]
    if tokenizer.decode(ids) != tokenizer.decode(whole):
        raise InputError(
            "the first tokens of the answer merge with the last ones of the prompt, so the answer cannot be told from "
            "the prompt",
            path=place,
            field="output",
            remedy="use another --template, or mend or remove the row",
        )
    return ids


def _check_turns(
    rows: Sequence[tuple[Row, Sequence[Exchange]]], training_rows: Sequence[TrainingRow], tokenizer: Any
) -> None:
    """Make sure that the tokens of exchanges, put together, are those of each conversation as a whole.

    Raises:
        InputError: When turns merge into each other.
    """
    several = [
        ("".join(exchange.prompt + exchange.answer for exchange in exchanges), training_row)
        for (_, exchanges), training_row in zip(rows, training_rows, strict=True)
        if len(exchanges) > 1
    ]
    for whole, (_, row) in zip(_ids(tokenizer, [text for text, _ in several]), several, strict=True):
        if list(row.input_ids) != whole and tokenizer.decode(row.input_ids) != tokenizer.decode(whole):
            raise InputError(
                "the tokens of a turn merge with those of the next, so the turns cannot be told apart",
                path=row.place, remedy="use a --template that puts a special token between turns, or remove the row",
            )  # fmt: skip


def _unlearnable(row: TrainingRow, eos_token_id: int, max_length: int) -> str | None:
    """Why a tokenised row cannot be trained on."""
    if any(begin == end for begin, end in row.spans):
        return "all_masked"
    if row.input_ids[-1] != eos_token_id:
        raise _unknown_eos()
    # The last token of an answer may be one, and of the last answer is.
    if any(eos_token_id in row.input_ids[begin : end - 1] for begin, end in row.spans):
        return "eos_in_output"
    return "too_long" if len(row.input_ids) > max_length else None


def _unknown_eos() -> UsageError:
    return UsageError("the model's tokenizer does not read its own end-of-sequence token back as one token")


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Tokens of rendered texts, which hold their special tokens already."""
    if not texts:  # an error in some tokenizers
        return []
    # Not verbose: rows beyond the model's length are dropped by --max-length and counted.
    return tokenizer(texts, add_special_tokens=False, verbose=False).input_ids  # type: ignore[no-any-return]
