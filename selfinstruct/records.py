"""The values that flow through the generator, in the order in which they arise.

    Example (a seed) -> Prompt -> Completion -> Candidate -> Verdict -> Example

Seeds and accepted candidates share one type, because accepted ones become demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

Endpoint = Literal["chat", "completions"]


class Message(TypedDict):
    """One turn of a chat, in the form that every chat API and chat template takes."""

    role: Literal["system", "user", "assistant"]
    content: str


def conversation_text(messages: Sequence[Message]) -> str:
    """Messages one after the other, as they are shown to people."""
    return "\n\n".join(message["content"] for message in messages)


@dataclass(frozen=True, slots=True)
class Instance:
    """One case of a task: what it is applied to (may be empty) and the right answer."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a candidate came from, down to the request and the demonstrations shown in it.

    Attributes:
        demonstrations: Ids of the examples shown; of a rewritten task the one that was rewritten.
        attributes: What its strategy drew for this one task, by name.
    """

    strategy: str
    model: str
    slot: int
    prompt_key: str
    completion_key: str
    demonstrations: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """As JSON values; attributes are left out where there are none."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values if self.attributes else {name: v for name, v in values.items() if name != "attributes"}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Source:
        """The inverse of `as_row`, also after JSON made a list of the tuple."""
        return cls(**{**row, "demonstrations": tuple(row["demonstrations"])})


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An example already in the pool and its ROUGE-L F-measure (0 to 1) with a candidate."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Example:
    """A task with its instances: a hand-written seed, or an accepted candidate."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool
    name: str = ""
    source: Source | None = None
    nearest: tuple[Neighbour, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the teacher: what is asked and how it is sampled.

    Attributes:
        messages: The chat; for the plain completion endpoint one user message, whose text is continued.
        max_tokens: Most tokens of the answer proper (thinking comes on top).
        stop: The answer ends before the first of these strings.
        n: How many replies are wanted; the prompt is paid for once.
        seed: Of the endpoint's sampling, where it takes one.
        logit_bias: Added to the log-odds of tokens, by token id, where the endpoint takes it; -100 bans, 100 forces.
        json_schema: What a chat reply shall conform to, where the endpoint can be held to it.
        demonstrations: Ids of the examples shown.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    logit_bias: Mapping[str, float] | None = None
    json_schema: Mapping[str, Any] | None = None
    demonstrations: tuple[str, ...] = ()

    def as_request(self) -> dict[str, Any]:
        """What is asked, as JSON values: what the ledger keeps, and what a reply is found by. Defaults are left out."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @classmethod
    def of_request(cls, request: Mapping[str, Any]) -> Prompt:
        """The inverse of `as_request`, also after JSON made lists of tuples."""
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in request.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply to a prompt.

    Attributes:
        prompt_key: Identifies the request; derived from configuration, slot, index and content.
        key: Identifies the reply; derived from the prompt key, the text and the reply's place among several.
        text: The reply without thinking text.
        finish_reason: "stop", "length", "content_filter", or "error" for a permanent error, whose message is `error`.
    """

    prompt_key: str
    key: str
    text: str
    finish_reason: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request as the endpoint counted them, thinking included; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def total(self) -> int | None:
        """Both together, if both are known."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one candidate; `rule` is None for an accepted one, else the name of what rejected it."""

    rule: str | None
    detail: str = ""
    nearest: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task as parsed from completions.

    Attributes:
        rejection: A verdict that was clear at once: its reply could not be parsed, or was cut. None for others.
        screened: Whether a filter is certain to reject it by its instruction, so that nothing was paid to complete it.
        scores: What judges gave it, by name.
    """

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool
    source: Source
    rejection: Verdict | None = None
    screened: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One item of a held-out task, for evaluation.

    Attributes:
        id: Unique within one evaluation; items are paired by it.
        references: Acceptable answers, at least one.
        options: The answers to choose among; empty when any text may be the answer.
        metric: How it is scored; `tasks.RANKED` lists the metrics that rank options by log-likelihood.
        demonstrations: Worked cases of the same task, for few-shot prompts.
        template: Name of the template that made the instruction, where there are several for a task.
        wordings: The instruction in other words.
    """

    id: str
    task: str
    cluster: str
    instruction: str
    input: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    metric: str = "rouge_l"
    demonstrations: tuple[Instance, ...] = ()
    template: str = ""
    wordings: tuple[str, ...] = ()
