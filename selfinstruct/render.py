"""From a task to text: the one renderer that training, evaluation and export share.

A renderer gives the prompt, ready for the first token of the answer, and the completion that a model should learn
after it, with its end-of-sequence token. Special tokens stand in the text: tokenise it with add_special_tokens=False.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator

from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_text
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


# What --template takes besides a file.
TEMPLATES = ("auto", "chat", "alpaca", "plain")


class Exchange(NamedTuple):
    """A part of a conversation as text.

    Attributes:
        prompt: Everything from the end of the answer before it to the answer.
        answer: With what ends it.
    """

    prompt: str
    answer: str


class Renderer(Protocol):
    """Turns a task into text.

    Attributes:
        name: "alpaca", "plain" or "chat"; a template file is a chat template.
        sha256: Hash of everything that shapes the text; two renderers with one hash give the same text.
        takes_conversations: Whether there may be a system message and several turns.
    """

    name: str
    sha256: str
    takes_conversations: bool

    def prompt(self, instruction: str, input: str) -> str:
        """Everything before the answer."""
        ...

    def completion(self, instruction: str, input: str, output: str) -> str:
        """The answer as it follows the prompt, ending with the end-of-sequence token."""
        ...

    def exchanges(self, messages: Sequence[Message]) -> list[Exchange]:
        """The text of a conversation, answer by answer; the last one ends with the end-of-sequence token.

        Args:
            messages: User and assistant in turn, the assistant last, after a system message or none; one turn of each
                where the renderer takes no conversations.
        """
        ...

    def turns(self, messages: Sequence[Message]) -> str:
        """Everything before the next answer of a conversation; of one user message alone, its prompt."""
        ...


def joined(instruction: str, input: str) -> str:
    """Instruction and input as one user message."""
    return f"{instruction}\n\n{input}" if input else instruction


class _SingleTurn(ABC):
    """A template for one task and its answer.

    Args:
        bos: Text of the token that the model expects first, "" if none.
        eos: Text of the end-of-sequence token.
    """

    name: str
    texts: tuple[str, ...] = ()
    takes_conversations = False

    def __init__(self, bos: str, eos: str) -> None:
        self._bos, self._eos = bos, eos
        self.sha256 = _sha256(self.name, *self.texts, bos, eos)

    @abstractmethod
    def prompt(self, instruction: str, input: str) -> str: ...

    def completion(self, instruction: str, input: str, output: str) -> str:
        return output + self._eos

    def exchanges(self, messages: Sequence[Message]) -> list[Exchange]:
        question, answer = (message["content"] for message in messages)
        return [Exchange(self.prompt(question, ""), self.completion(question, "", answer))]

    def turns(self, messages: Sequence[Message]) -> str:
        """See `Renderer`.

        Raises:
            UsageError: For a system message, which the template has no place for.
        """
        first, *others = messages
        if first["role"] != "user":
            raise UsageError(f"the {self.name} template has no place for a system message; leave it out")
        text = self.prompt(first["content"], "")
        for message in others:
            content = message["content"]
            text += self._further(content) if message["role"] == "user" else content + self._eos
        return text

    @abstractmethod
    def _further(self, question: str) -> str:
        """A question that follows an answer, which the template was not made for."""


class AlpacaRenderer(_SingleTurn):
    """Stanford Alpaca's two templates."""

    name = "alpaca"
    texts = (ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT)

    def prompt(self, instruction: str, input: str) -> str:
        template = ALPACA_WITH_INPUT if input else ALPACA_WITHOUT_INPUT
        return self._bos + template.format(instruction=instruction, input=input)

    def _further(self, question: str) -> str:
        return f"\n\n### Instruction:\n{question}\n\n### Response:"


class PlainRenderer(_SingleTurn):
    """The prompt as it stands and the answer directly after it, for pairs that were rendered before."""

    name = "plain"

    def prompt(self, instruction: str, input: str) -> str:
        return self._bos + joined(instruction, input)

    def _further(self, question: str) -> str:
        return question


class ChatRenderer:
    """A chat template: the model's own, or one from a file.

    Args:
        apply: Renders messages; the second argument asks for the header of the next assistant turn.
            With transformers: `tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=g)`.
        template: Source of the template, for the hash.
        bos: Text of the token that the template may put first, "" if none; for the hash as well.
        eos: Text of the end-of-sequence token.
    """

    name = "chat"
    takes_conversations = True

    def __init__(self, apply: Callable[[list[Message], bool], str], template: str, bos: str, eos: str) -> None:
        self._apply, self._eos = apply, eos
        self.sha256 = _sha256(self.name, template, bos, eos)

    def prompt(self, instruction: str, input: str) -> str:
        return self._apply([{"role": "user", "content": joined(instruction, input)}], True)

    def completion(self, instruction: str, input: str, output: str) -> str:
        user: Message = {"role": "user", "content": joined(instruction, input)}
        (exchange,) = self.exchanges([user, {"role": "assistant", "content": output}])
        return exchange.answer

    def exchanges(self, messages: Sequence[Message]) -> list[Exchange]:
        found: list[Exchange] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self._apply(list(messages[:index]), True)
            whole = self._apply(list(messages[: index + 1]), False)
            if not whole.startswith(prompt):
                raise UsageError(
                    "the chat template changes the prompt once an answer follows, so the answer cannot be told from "
                    "the prompt; use --template alpaca"
                )
            if not prompt.startswith(done):
                raise UsageError(
                    f"the chat template writes the first {index} messages in another way once further ones follow, so "
                    "what is learnt would not be what the model is given later; give a --template file that does not"
                )
            answer = self._answer(whole[len(prompt) :], message["content"].strip(), is_last=index == len(messages) - 1)
            found.append(Exchange(prompt[len(done) :], answer))
            done = prompt + answer
        return found

    def _answer(self, answer: str, text: str, *, is_last: bool) -> str:
        """What is learnt of an assistant's turn: all up to its end; what stands after that is never generated.

        Args:
            answer: What the template writes after the prompt.
            text: The message, which may quote the end-of-sequence token; the turn ends with the first one after it.
            is_last: Whether no further turn follows.
        """
        after = answer.find(text) + len(text) if text in answer else 0
        end = answer.find(self._eos, after)
        if end >= 0:
            return answer[: end + len(self._eos)]
        if is_last:
            return answer + self._eos
        if not answer[after:].strip():
            raise UsageError(
                "the chat template marks no end of an answer that further turns follow, so the model could not learn "
                "to end it; give a --template file that writes {{ eos_token }} after each answer"
            )
        return answer

    def turns(self, messages: Sequence[Message]) -> str:
        return self._apply(list(messages), True)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _reads_like_a_file(template: str) -> bool:
    return bool(Path(template).suffix) or Path(template).exists()


def _known(template: str) -> str:
    if template in TEMPLATES or _reads_like_a_file(template):
        return template
    raise ValueError(f"input should be {', '.join(map(repr, TEMPLATES))} or a Jinja file")


TemplateName = Annotated[str, AfterValidator(_known)]
"""What `renderer_for` takes, as an option; whether a file is there is found when it is read."""


def renderer_for(tokenizer: Any, template: str) -> Renderer:
    """The renderer of a transformers tokenizer.

    Args:
        tokenizer: A `PreTrainedTokenizerBase`; typed loosely, since this package imports no transformers.
        template: "auto" (the model's chat template), "chat", "alpaca", "plain", or the path of a chat template in
            Jinja, which the tokenizer then has for its own, so that it is saved with it.

    Raises:
        InputError: When a template file is missing, or cannot be used with this tokenizer.
        UsageError: When a chat template is asked for and the model has none, or there is no end-of-sequence token.
            A model's own template that cannot be rendered raises one when it is used.
    """
    eos = tokenizer.eos_token
    if not eos:
        raise UsageError("the model's tokenizer has no end-of-sequence token, so answers could not end")
    if template in ("alpaca", "plain"):
        adds_bos = tokenizer.bos_token and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        single_turn = AlpacaRenderer if template == "alpaca" else PlainRenderer
        return single_turn(tokenizer.bos_token if adds_bos else "", eos)
    if template not in TEMPLATES:
        return _from_file(tokenizer, Path(template))
    if not tokenizer.chat_template:
        raise UsageError("the model has no chat template; use --template alpaca")
    return _chat(tokenizer, tokenizer.get_chat_template())


def _chat(tokenizer: Any, template: str) -> ChatRenderer:
    source = _NOW.sub(lambda call: repr(_TODAY.strftime(call["format"])), template)

    def apply(messages: Sequence[Message], generation_prompt: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, chat_template=source, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except Exception as error:  # a template may raise anything
            raise UsageError(f"the chat template fails ({error}); use --template alpaca") from error

    return ChatRenderer(apply, source, tokenizer.bos_token or "", tokenizer.eos_token)


def _from_file(tokenizer: Any, path: Path) -> ChatRenderer:
    """The renderer of a template file, tried on one exchange."""
    from jinja2 import TemplateSyntaxError

    if not _reads_like_a_file(str(path)):
        raise UsageError(f"--template: '{path}' is none of {', '.join(TEMPLATES)}, and no such file is there")
    template = read_text(path)
    renderer = _chat(tokenizer, template)
    question, answer = "What is 6 times 7?", "It is 42."
    try:
        prompt, completion = renderer.prompt(question, ""), renderer.completion(question, "", answer)
    except UsageError as error:
        cause = error.__cause__
        line = cause.lineno if isinstance(cause, TemplateSyntaxError) else None
        problem = f"fails as a chat template ({cause})" if cause else str(error).partition(";")[0]
        raise InputError(problem, path=path, line=line, remedy="mend the template") from error
    if question not in prompt or answer not in completion:
        missing = "user" if question not in prompt else "assistant"
        raise InputError(
            f"does not write what the {missing} says",
            path=path,
            remedy="write {{ message['content'] }} of all messages",
        )
    tokenizer.chat_template = template
    return renderer
