"""The values that flow through the generator, in the order in which they arise.

    Example (a seed) -> Prompt -> Completion -> Candidate -> Verdict -> Example

Seeds and accepted candidates share one type, because accepted ones become demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

Endpoint = Literal["chat", "completions"]


class Message(TypedDict):
    """One turn of a chat, in the form that every chat API and chat template takes."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One case of a task: what it is applied to (may be empty) and the right answer."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a candidate came from, down to the request and the demonstrations shown in it."""

    strategy: str
    model: str
    slot: int
    prompt_key: str
    completion_key: str
    demonstrations: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the teacher: what is asked and how it is sampled.

    Attributes:
        messages: The chat; for the plain completion endpoint one user message, whose text is continued.
        max_tokens: Most tokens of the answer proper (thinking comes on top).
        stop: The answer ends before the first of these strings.
        demonstrations: Ids of the examples shown.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    demonstrations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for a prompt.

    Attributes:
        prompt_key: Identifies the request; derived from configuration, slot, index and content.
        key: Identifies the reply; derived from the prompt key and the text.
        text: The reply without thinking text.
        finish_reason: "stop", "length", "content_filter", or "error" for a permanent error, whose message is `error`.
        prompt_tokens, completion_tokens: As the endpoint counted them; thinking counts as completion.
    """

    prompt_key: str
    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None


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
        rejection: A verdict that was clear before the task was complete: its reply could not be parsed, or its
            instruction failed a filter, so that nothing more was paid for it. None for a complete task.
    """

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool
    source: Source
    rejection: Verdict | None = None


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One item of a held-out task, for evaluation.

    Attributes:
        id: Unique within one evaluation; items are paired by it.
        references: Acceptable answers, at least one.
        options: The answers to rank by log-likelihood; empty when the answer is generated.
        metric: "accuracy", "exact_match" or "rouge_l".
        demonstrations: Worked cases of the same task, for few-shot prompts.
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
