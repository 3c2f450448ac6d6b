"""From a task to text: the one renderer that training, evaluation and export share.

A renderer gives the prompt, ready for the first token of the answer, and the completion that a model should learn
after it, with its end-of-sequence token. Special tokens stand in the text: tokenise it with add_special_tokens=False.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Protocol

from selfinstruct.errors import UsageError
from selfinstruct.records import Message

# The two prompts of Stanford Alpaca (train.py, PROMPT_DICT); the answer follows the colon directly.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
# Some chat templates state today's date; the text must not change from day to day. This is the date that Llama 3's
# template falls back to where it is told none.
_TODAY = date(2024, 7, 26)
_NOW = re.compile(r"""strftime_now\((?P<quote>["'])(?P<format>.*?)(?P=quote)\)""")


class Renderer(Protocol):
    """Turns a task into text.

    Attributes:
        name: "alpaca" or "chat".
        sha256: Hash of everything that shapes the text; two renderers with one hash give the same text.
    """

    name: str
    sha256: str

    def prompt(self, instruction: str, input: str) -> str:
        """Everything before the answer."""
        ...

    def completion(self, instruction: str, input: str, output: str) -> str:
        """The answer as it follows the prompt, ending with the end-of-sequence token."""
        ...

    def turns(self, messages: Sequence[Message]) -> str:
        """Everything before the next answer of a conversation; of one user message alone, its prompt."""
        ...


def joined(instruction: str, input: str) -> str:
    """Instruction and input as one user message."""
    return f"{instruction}\n\n{input}" if input else instruction


class AlpacaRenderer:
    """Stanford Alpaca's two templates.

    Args:
        bos: Text of the token that the model expects first, "" if none.
        eos: Text of the end-of-sequence token.
    """

    name = "alpaca"

    def __init__(self, bos: str, eos: str) -> None:
        self._bos, self._eos = bos, eos
        self.sha256 = _sha256(self.name, ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT, bos, eos)

    def prompt(self, instruction: str, input: str) -> str:
        template = ALPACA_WITH_INPUT if input else ALPACA_WITHOUT_INPUT
        return self._bos + template.format(instruction=instruction, input=input)

    def completion(self, instruction: str, input: str, output: str) -> str:
        return output + self._eos

    def turns(self, messages: Sequence[Message]) -> str:
        """See `Renderer`; Alpaca has one turn, and further ones repeat its sections.

        Raises:
            UsageError: For a system message, which the template has no place for.
        """
        first, *others = messages
        if first["role"] != "user":
            raise UsageError("the alpaca template has no place for a system message; leave it out")
        text = self.prompt(first["content"], "")
        for message in others:
            is_user = message["role"] == "user"
            content = message["content"]
            text += f"\n\n### Instruction:\n{content}\n\n### Response:" if is_user else content + self._eos
        return text


class ChatRenderer:
    """A model's own chat template, one user turn and one assistant turn.

    Args:
        apply: Renders messages; the second argument asks for the header of the next assistant turn.
            With transformers: `tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=g)`.
        template: Source of the template, for the hash.
        bos: Text of the token that the template may put first, "" if none; for the hash as well.
        eos: Text of the end-of-sequence token.
    """

    name = "chat"

    def __init__(self, apply: Callable[[list[Message], bool], str], template: str, bos: str, eos: str) -> None:
        self._apply, self._eos = apply, eos
        self.sha256 = _sha256(self.name, template, bos, eos)

    def prompt(self, instruction: str, input: str) -> str:
        return self._apply([{"role": "user", "content": joined(instruction, input)}], True)

    def completion(self, instruction: str, input: str, output: str) -> str:
        user: Message = {"role": "user", "content": joined(instruction, input)}
        prompt = self._apply([user], True)
        whole = self._apply([user, {"role": "assistant", "content": output}], False)
        if not whole.startswith(prompt):
            raise UsageError(
                "the model's chat template changes the prompt once an answer follows, so the answer cannot be told "
                "from the prompt; use --template alpaca"
            )
        answer = whole[len(prompt) :]
        # The turn ends with the first such token after the output, which may quote it. What a template writes after
        # that is never generated, so it is not learnt either.
        text = output.strip()
        end = answer.find(self._eos, answer.find(text) + len(text) if text in answer else 0)
        return answer[: end + len(self._eos)] if end >= 0 else answer + self._eos

    def turns(self, messages: Sequence[Message]) -> str:
        return self._apply(list(messages), True)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def renderer_for(tokenizer: Any, template: str) -> Renderer:
    """The renderer of a transformers tokenizer.

    Args:
        tokenizer: A `PreTrainedTokenizerBase`; typed loosely, since this package imports no transformers.
        template: "auto" (the model's chat template), "chat" or "alpaca".

    Raises:
        UsageError: When a chat template is asked for and the model has none, or there is no end-of-sequence token.
            A template that cannot be rendered raises one when it is used.
    """
    eos = tokenizer.eos_token
    if not eos:
        raise UsageError("the model's tokenizer has no end-of-sequence token, so answers could not end")
    if template == "alpaca":
        adds_bos = tokenizer.bos_token and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        return AlpacaRenderer(tokenizer.bos_token if adds_bos else "", eos)
    if not tokenizer.chat_template:
        raise UsageError("the model has no chat template; use --template alpaca")
    source = _NOW.sub(lambda call: repr(_TODAY.strftime(call["format"])), tokenizer.get_chat_template())

    def apply(messages: Sequence[Message], generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, chat_template=source, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except TemplateError as error:
            raise UsageError(f"the model's chat template fails ({error}); use --template alpaca") from error

    return ChatRenderer(apply, source, tokenizer.bos_token or "", eos)
