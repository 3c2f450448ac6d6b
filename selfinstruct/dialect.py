"""What is sent for a prompt, and what an endpoint turns out not to take of it.

Reasoning models want max_completion_tokens and refuse sampling parameters; other servers know no JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfinstruct.endpoint import Choice, Reply, Server
from selfinstruct.errors import PermanentError
from selfinstruct.records import Prompt, Usage

# What a model that refuses max_tokens (a reasoning model) may think a request, unless --thinking-tokens says otherwise.
DEFAULT_THINKING_TOKENS = 2048
# How long a list may get: taken by OpenAI and by servers of one's own, but refused by others that take a schema.
_BOUND = "maxItems"
_THINKING = "thinking"  # what a request made no room for, in the place of a refused parameter
_OPTIONAL = (
    "temperature", "top_p", "presence_penalty", "stop", "seed", "n", "logit_bias", "response_format",
)  # fmt: skip


class WastedReply(PermanentError):
    """A reply that was billed and holds nothing."""

    def __init__(self, message: str, parameter: str, usage: Usage) -> None:
        super().__init__(message, parameter)
        self.usage = usage


class Dialect:
    """Makes the requests of one endpoint; learns from its refusals.

    Args:
        server: The endpoint.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._refused: set[str] = set()

    @property
    def _allowance(self) -> int:
        """Tokens for thinking on top of each answer's."""
        if self._server.thinking_tokens is not None:
            return self._server.thinking_tokens
        return DEFAULT_THINKING_TOKENS if {"max_tokens", _THINKING} & self._refused else 0

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The request for a prompt."""
        body: dict[str, Any] = {"model": self._server.model}
        chat = self._server.endpoint == "chat"
        if chat:
            body["messages"] = list(prompt.messages)
        else:
            body["prompt"] = prompt.messages[-1]["content"]
        limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
        body[limit] = prompt.max_tokens + self._allowance
        schema = _unbounded(prompt.json_schema) if _BOUND in self._refused else prompt.json_schema
        reply = {"name": "reply", "schema": schema, "strict": True}
        optional = {
            "temperature": prompt.temperature,
            "top_p": prompt.top_p if prompt.top_p < 1 else None,
            "presence_penalty": prompt.presence_penalty or None,
            "stop": list(prompt.stop) or None,
            "n": prompt.n if prompt.n > 1 else None,
            "seed": prompt.seed,
            "logit_bias": prompt.logit_bias,
            "response_format": {"type": "json_schema", "json_schema": reply} if chat and prompt.json_schema else None,
        }
        return body | {k: v for k, v in optional.items() if v is not None and k not in self._refused}

    def max_completion_tokens(self, body: Mapping[str, Any]) -> int:
        """The most tokens that all replies to a request can have together."""
        each = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        return int(each) * int(body.get("n", 1))

    def has_alternative(self, parameter: str | None, body: Mapping[str, Any]) -> bool:
        """Whether a request can be made without a parameter that was refused in it, or with room for thinking."""
        return parameter == _THINKING or (parameter in body and parameter in (*_OPTIONAL, "max_tokens"))

    def learn(self, parameter: str | None, body: Mapping[str, Any]) -> None:
        """Leave a parameter out from now on, or of a schema first its bound.

        Args:
            parameter: What was refused.
            body: The request in which it was.
        """
        sent = body.get(parameter) if parameter == "response_format" else None
        if parameter:
            self._refused.add(_BOUND if _unbounded(sent) != sent else parameter)

    def check_thinking(self, reply: Reply, body: Mapping[str, Any], prompt: Prompt) -> None:
        """Notice a reply that is nothing but thinking, because its request made no room for any.

        Raises:
            WastedReply: The request has to be made again, with room.
        """
        cut = all(c.thought and c.finish_reason == "length" and not c.text.strip() for c in reply.choices)
        if cut and self._server.thinking_tokens is None and body.get("max_tokens") == prompt.max_tokens:
            raise WastedReply("cut while thinking", _THINKING, reply.usage)

    def cut(self, choice: Choice, prompt: Prompt) -> Choice:
        """End a reply where its stop strings would have ended it, for endpoints that refuse or forget them."""
        ends = [choice.text.find(stop) for stop in prompt.stop if stop in choice.text]
        return replace(choice, text=choice.text[: min(ends)], finish_reason="stop") if ends else choice


def _unbounded(schema: Any) -> Any:
    """A schema without the bounds of its lists."""
    if isinstance(schema, Mapping):
        return {name: _unbounded(value) for name, value in schema.items() if name != _BOUND}
    return schema
