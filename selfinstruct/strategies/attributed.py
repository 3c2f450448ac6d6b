"""Attributed prompts (AttrPrompt, Yu et al., 2023; personas, Ge et al., 2024): every task has a brief of its own.

Topic, person, kind, difficulty, form and length come from a table, each in turn, so that a run covers all of it evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise, product
from operator import eq
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from selfinstruct.files import digest, read_toml, shipped, validate
from selfinstruct.languages import language_name
from selfinstruct.parsing import task_blocks
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, Strategy, unparsable
from selfinstruct.strategies.copying import copy_check, texts_of

N_DEMONSTRATIONS = 2
MAX_TOKENS = 4096
_MAX_PASSES = 8  # over a round, to resolve contradictions
_MAX_TOKENS_PER_TASK, _TOKENS_PER_TASK = 600, 220  # bound, and usual length for forecasts

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\r\n]*$")]
Choice = Literal["task_type", "difficulty", "format", "length"]
# The lines of a brief, in order, and which part of the table each is drawn from.
_LINES = {
    "topic": ("About", "topics"),
    "persona": ("Asked by", "personas"),
    "task_type": ("What is asked", "task_types"),
    "difficulty": ("Difficulty", "difficulties"),
    "format": ("Form of the output", "formats"),
    "length": ("Length of the output", "lengths"),
}
_CHOICES: tuple[Choice, ...] = ("task_type", "difficulty", "format", "length")

_REQUIREMENTS = """\
Write tasks for a text-only assistant, each with an input and the assistant's output. They serve to teach a language
model to follow instructions. The tasks before task {first} only show the form. Each of the tasks {first} to {last} has
a brief, which says what it is about, who asks, and what the output is like.

What matters:
- An instruction is what that person would really write, in their own words, as a question, a command or a request of
  one to three sentences. It says what form and length the output shall have, in natural words too.
- It stands by itself: it does not mention this brief, and names the person only where that matters for the answer.
- It can be done with text alone: nothing to see, hear, open or look up.
- The input is what the task works on: concrete and realistic, no stand-in, at most 120 words. A task that works on
  nothing has "<noinput>".
- The output does all that is asked for, correctly, in the form and length of the brief.
- Everything is in {language}.

{briefs}

The tasks:
"""


class AttributeTable(BaseModel):
    """What is drawn from. Of topics and personas the phrase itself is kept with the data, of the others their name.

    Attributes:
        never: Combinations that contradict each other: those with a listed value of every attribute that is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: list[Phrase] = Field(min_length=1)
    personas: list[Phrase] = Field(min_length=1)
    task_types: dict[Phrase, Phrase] = Field(min_length=1)
    difficulties: dict[Phrase, Phrase] = Field(min_length=1)
    formats: dict[Phrase, Phrase] = Field(min_length=1)
    lengths: dict[Phrase, Phrase] = Field(min_length=1)
    never: list[dict[Choice, Annotated[list[str], Field(min_length=1)]]] = []

    @field_validator("topics", "personas")
    @classmethod
    def _different(cls, phrases: list[str]) -> list[str]:
        if repeated := {phrase for phrase in phrases if phrases.count(phrase) > 1}:
            raise ValueError(f"'{min(repeated)}' stands there twice")
        return phrases

    @model_validator(mode="after")
    def _rules_fit(self) -> AttributeTable:
        for rule in self.never:
            if len(rule) < 2:
                raise ValueError("never: each rule names two attributes or more")
            for name, values in rule.items():
                if unknown := sorted(set(values) - set(self.values(name))):
                    raise ValueError(f"never: {name} '{unknown[0]}' is not among the {_LINES[name][1]}")
        left = {(name, value) for values in self.combinations for name, value in zip(_CHOICES, values, strict=True)}
        for name in _CHOICES:
            for value in self.values(name):
                if (name, value) not in left:
                    raise ValueError(f"never: the rules leave no combination with {name} '{value}'")
        return self

    @property
    def size(self) -> int:
        """Length of a round: that of the longest list."""
        return max(len(self.values(name)) for name in _LINES)

    def values(self, attribute: str) -> tuple[str, ...]:
        """What an attribute may be, as kept with the data."""
        return tuple(getattr(self, _LINES[attribute][1]))

    def phrase(self, attribute: str, value: str) -> str:
        """A value as the brief says it."""
        phrases = getattr(self, _LINES[attribute][1])
        return phrases[value] if isinstance(phrases, dict) else value

    @cached_property
    def combinations(self) -> frozenset[tuple[str, ...]]:
        """All values of the attributes that rules speak of which do not contradict each other."""
        rules = [{_CHOICES.index(name): set(values) for name, values in rule.items()} for rule in self.never]
        return frozenset(
            values
            for values in product(*map(self.values, _CHOICES))
            if not any(all(values[place] in listed for place, listed in rule.items()) for rule in rules)
        )

    def agrees(self, drawn: Mapping[str, str]) -> bool:
        """Whether what was drawn does not contradict itself."""
        return tuple(drawn[name] for name in _CHOICES) in self.combinations


class Attributed(Strategy):
    """A few tasks a request, each after a brief of its own.

    Attributes:
        table: A TOML file like the shipped data/attributes.toml, with topics, persons and so on of one's own.
        table_key: Of the table's content, found out by itself: it belongs to what shapes a run.
    """

    kind: Literal["attributed"] = "attributed"
    tasks_per_request: int = Field(4, gt=0, le=50)
    table: Path | None = None
    table_key: str = ""

    @model_validator(mode="before")
    @classmethod
    def _know_the_table(cls, values: Any) -> Any:
        """A wrong table is found before a run begins, a changed one before it goes on."""
        if not isinstance(values, dict) or values.get("table_key"):
            return values
        path = shipped_or(values.get("table"))
        key = table_key(path)
        read_table(path, key)
        return {**values, "table_key": key}

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from one request."""
        shown = slot.rng.sample(slot.seeds, min(N_DEMONSTRATIONS, len(slot.seeds)))
        drawn = self.drawn(slot)
        prompt = self.prompt(slot, shown, drawn)
        completions = await slot.ask_all("list", prompt)
        # Briefs want their words to come again: an instruction names the form and the subject.
        phrases = [self._table().phrase(name, row[name]) for row in drawn for name in _LINES]
        copied = copy_check(prompt, [*texts_of(shown), *phrases])
        return [c for completion in completions for c in _candidates(slot, prompt, drawn, completion, copied)]

    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """The one request."""
        prompt = self.prompt(slot, slot.seeds[:N_DEMONSTRATIONS], self.drawn(slot))
        return (Step(prompt, self.tasks_per_request * _TOKENS_PER_TASK),)

    def drawn(self, slot: Slot) -> list[Mapping[str, str]]:
        """The attributes of a slot's tasks, the next ones in the order of the run."""
        path, seed = shipped_or(self.table), slot.run_rng("attributed").random()
        size, first = self._table().size, slot.number * self.tasks_per_request
        rounds = range(first // size, (first + self.tasks_per_request - 1) // size + 1)
        rows = [row for number in rounds for row in drawn_round(path, self.table_key, seed, number)]
        return rows[first % size :][: self.tasks_per_request]

    def prompt(self, slot: Slot, shown: Sequence[Example], drawn: Sequence[Mapping[str, str]]) -> Prompt:
        """The requirements and briefs, some tasks as examples of the form, and the start of the first new one."""
        table, first = self._table(), len(shown) + 1
        briefs = "\n\n".join(_brief(table, number, row) for number, row in enumerate(drawn, start=first))
        blocks = "".join(_block(number, task) for number, task in enumerate(shown, start=1))
        last = len(shown) + len(drawn)
        text = _REQUIREMENTS.format(first=first, last=last, language=language_name(slot.language), briefs=briefs)
        return Prompt(
            ({"role": "user", "content": f"{text}{blocks}###\n{first}. Instruction:"},),
            max_tokens=min(MAX_TOKENS, _MAX_TOKENS_PER_TASK * len(drawn)),
            temperature=1.0,
            stop=(f"\n{last + 1}. Instruction", f"\n###\n{last + 1}."),
            n=self.replies_per_request,
            demonstrations=tuple(task.id for task in shown),
        )

    def _table(self) -> AttributeTable:
        path = shipped_or(self.table)
        return read_table(path, self.table_key)


def shipped_or(path: Path | str | None) -> Path:
    """A user's own table, or the shipped one."""
    return Path(path) if path else shipped("attributes.toml")


@lru_cache(maxsize=4)
def read_table(path: Path, key: str) -> AttributeTable:
    """Read a table.

    Args:
        path: A TOML file.
        key: Of its content, as of `table_key`.

    Raises:
        InputError: For a broken file, a missing, unknown or wrong field, or rules that contradict each other.
    """
    return validate(AttributeTable, read_toml(path), path=path)


def table_key(path: Path) -> str:
    """Identifies a table's content, whatever its layout.

    Raises:
        InputError: For a file that cannot be read.
    """
    return digest(read_toml(path))


@lru_cache(maxsize=16)
def drawn_round(table_path: Path, key: str, seed: float, number: int) -> tuple[Mapping[str, str], ...]:
    """The attributes of the tasks of one round, which is as long as the longest list of the table.

    Each attribute goes through its values in a drawn order, then through them again in another one, over all rounds; so
    after any round no value was drawn twice more often than another. Values that contradict each other change places
    within the round, which leaves these numbers as they are. Only where no exchange helps is a value replaced.

    Args:
        table_path, key: As of `read_table`.
        seed: Of all draws of a run.
        number: Of the round, from 0.
    """
    table = read_table(table_path, key)
    size = table.size
    columns = {name: _stretch(table.values(name), number * size, size, f"{seed}/{name}") for name in _LINES}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rng = Random(f"{seed}/places/{number}")  # noqa: S311
    for _ in range(_MAX_PASSES):
        for row in rows:
            if not table.agrees(row):
                _exchange(table, row, rows, rng)
    for row in rows:
        if not table.agrees(row):
            row.update(_nearest(table, row))
    return tuple(rows)


def _stretch(values: Sequence[str], start: int, size: int, seed: str) -> list[str]:
    """A stretch of the endless row of shuffled lists of an attribute's values."""
    first, last = start // len(values), (start + size - 1) // len(values)
    shuffled = [
        value
        for cycle in range(first, last + 1)
        for value in Random(f"{seed}/{cycle}").sample(values, len(values))  # noqa: S311
    ]
    return shuffled[start - first * len(values) :][:size]


def _exchange(table: AttributeTable, row: dict[str, str], rows: Sequence[dict[str, str]], rng: Random) -> None:
    """Exchange one value with another row, such that the fewest contradictions are left; it may only move one on."""
    best_gain, best = -1, None
    for other in rng.sample(rows, len(rows)):
        before = table.agrees(other)
        for name in rng.sample(_CHOICES, len(_CHOICES)):
            if row[name] == other[name]:
                continue
            row[name], other[name] = other[name], row[name]
            gain = table.agrees(row) + table.agrees(other) - before
            row[name], other[name] = other[name], row[name]
            if gain > best_gain:
                best_gain, best = gain, (name, other)
    if best:
        name, other = best
        row[name], other[name] = other[name], row[name]


def _nearest(table: AttributeTable, row: Mapping[str, str]) -> dict[str, str]:
    """The combination that has most in common with a row."""
    drawn = tuple(row[name] for name in _CHOICES)
    nearest = max(sorted(table.combinations), key=lambda values: sum(map(eq, values, drawn)))
    return dict(zip(_CHOICES, nearest, strict=True))


def _candidates(
    slot: Slot, prompt: Prompt, drawn: Sequence[Mapping[str, str]], completion: Completion,
    copied: Callable[[str], Verdict | None],
) -> list[Candidate]:  # fmt: skip
    blocks = task_blocks(completion.text)
    if not blocks:
        return [unparsable(slot, completion, prompt.demonstrations)]
    candidates = []
    briefs = _briefs([block.number for block in blocks], len(prompt.demonstrations) + 1, len(drawn))
    for index, (block, brief) in enumerate(zip(blocks, briefs, strict=True)):
        attributes = drawn[brief] if brief < len(drawn) else None
        rejection: Verdict | None
        if completion.finish_reason == "length" and index == len(blocks) - 1:
            rejection = Verdict("truncated", "the reply reached its token limit inside this task")
        elif not block.instruction:
            rejection = Verdict("no_instruction", "a block without an instruction")
        elif attributes is None:
            rejection = Verdict("surplus", f"only {len(drawn)} tasks had a brief")
        else:
            rejection = copied(block.instruction)
        candidate = slot.candidate(
            completion, index, block.instruction, block.instances, False, prompt.demonstrations, rejection,
            attributes=attributes,
        )  # fmt: skip
        candidates.append(candidate)
    return candidates


def _briefs(numbers: Sequence[int | None], first: int, n: int) -> list[int]:
    """Which brief each task follows, counted from 0: by its number, or by its place if the numbers make no sense.

    They do if they grow and are the briefs' own, or count them from 1; a task without one comes next.

    Args:
        numbers: Of the tasks, as labelled.
        first: Number of the first brief.
        n: How many there are.
    """
    start = 1 if numbers[0] == 1 else first
    filled: list[int] = []
    for number in numbers:
        following = filled[-1] + 1 if filled else start
        filled.append(following if number is None else number)
    grows = all(one < other for one, other in pairwise([start - 1, *filled]))
    return [number - start for number in filled] if grows and filled[-1] < start + n else list(range(len(filled)))


def _brief(table: AttributeTable, number: int, drawn: Mapping[str, str]) -> str:
    lines = (f"{line}: {table.phrase(name, drawn[name])}" for name, (line, _) in _LINES.items())
    return "\n".join((f"Brief of task {number}", *lines))


def _block(number: int, task: Example) -> str:
    instance = task.instances[0]
    instruction = " ".join(task.instruction.split())
    return (
        f"###\n{number}. Instruction: {instruction}\n{number}. Input:\n{instance.input or '<noinput>'}\n"
        f"{number}. Output:\n{instance.output}\n"
    )
