"""What can answer questions: the interface, and the engine that asks an OpenAI-compatible endpoint.

`transformers_engine` is the one that computes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from finetune.answers import Answer
from finetune.questions import Question
from selfinstruct.asking import EndpointConfig, Spent, ask_all
from selfinstruct.errors import UsageError
from selfinstruct.files import digest
from selfinstruct.records import Completion, Endpoint, Message, Prompt
from selfinstruct.render import TEMPLATES, AlpacaRenderer, ChatRenderer, PlainRenderer, Renderer

KeepAnswers = Callable[[Mapping[int, Answer]], None]
"""Takes new answers by the number of their question."""


class Engine(Protocol):
    """Answers questions.

    Attributes:
        model: The model's public name.
        location: Where it is.
        renderer: Turns tasks into its prompts.
        ranks: Whether it tells log-likelihoods, so that options can be ranked.
        identity: All that shapes an answer besides its question, as JSON values.
        packages: Whose versions belong to a record of the evaluation.
        spent: What requests took; None where none are made.
    """

    model: str
    location: str
    renderer: Renderer
    ranks: bool
    identity: Mapping[str, Any]
    packages: tuple[str, ...]
    spent: Spent | None

    def problem(self, question: Question) -> str | None:
        """Why a question cannot be put to the model at all; None when it can."""
        ...

    def answer(self, questions: Mapping[int, Question], keep: KeepAnswers) -> None:
        """Answer questions.

        Args:
            questions: By numbers that are theirs in every call for one evaluation; none of them with a `problem`.
            keep: Is given answers as they come.
        """
        ...


class EndpointEngine:
    """A model behind an OpenAI-compatible endpoint, which generates answers and ranks nothing.

    Requests go through a ledger and a budget, so that a reply that was paid for is never asked for again. Answers are
    asked for at temperature 0; an endpoint may still vary them.

    Args:
        config: Where, and under which caps.
        model: The model's name there.
        template: "auto" or "chat" sends one user message, to which the server applies the model's template; "alpaca"
            and "plain" send such prompts to the API for plain completions.
        max_new_tokens: Most tokens of an answer.
        ledger: Its file.

    Raises:
        UsageError: For a template file.
    """

    ranks = False
    packages: tuple[str, ...] = ("selfinstruct",)

    def __init__(self, config: EndpointConfig, model: str, template: str, max_new_tokens: int, ledger: Path) -> None:
        self._config, self._max_new_tokens, self._ledger = config, max_new_tokens, ledger
        self.renderer: Renderer = _renderer(template)
        self._endpoint: Endpoint = "chat" if self.renderer is _MESSAGE else "completions"
        self.model, self.location = model, config.url
        self.identity: Mapping[str, Any] = {"model": model, "endpoint": f"{config.url} {self._endpoint}"}
        self.spent: Spent | None = None

    def problem(self, question: Question) -> None:
        """None: only the endpoint knows."""

    def answer(self, questions: Mapping[int, Question], keep: KeepAnswers) -> None:
        """Ask all questions, see `Engine`.

        Raises:
            Error: See `asking.ask_all`.
        """

        def receive(number: int, completion: Completion) -> None:
            keep({number: _answer(completion)})

        prompts = {
            number: Prompt(({"role": "user", "content": q.prompt},), max_tokens=self._max_new_tokens, temperature=0.0)
            for number, q in questions.items()
        }
        self.spent = ask_all(
            self._config, self.model, self._endpoint, self._ledger, digest(self.identity), prompts, receive
        )


def _user_text(messages: list[Message], generation_prompt: bool) -> str:
    return messages[0]["content"]


# The text of the user's message is all of the prompt that is known here.
_MESSAGE = ChatRenderer(_user_text, "the endpoint's own", "", "")


def _renderer(template: str) -> Renderer:
    if template not in TEMPLATES:
        raise UsageError("--template: an endpoint applies the model's own template; give auto, chat, alpaca or plain")
    return {"alpaca": AlpacaRenderer("", ""), "plain": PlainRenderer("", "")}.get(template, _MESSAGE)


def _answer(completion: Completion) -> Answer:
    if completion.finish_reason == "error":
        return Answer(error=completion.error or "the endpoint refuses it")
    return Answer(completion.text.strip(), stop="length" if completion.finish_reason == "length" else "eos")
