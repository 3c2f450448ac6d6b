"""`finetune chat`: a conversation with a model in the terminal or a script, in the template it was trained with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from finetune.models import check_base, load_adapter, load_model, renderer_of, resolve, tokenizer_of
from selfinstruct.characters import printable
from selfinstruct.command import Config
from selfinstruct.errors import Error, UsageError
from selfinstruct.records import Message
from selfinstruct.render import Renderer, TemplateName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CLEAR = "/clear"
HINT = f"Ctrl-C stops an answer, Ctrl-D leaves, {CLEAR} begins anew."
# What a decoder writes for the bytes of a character that is not complete yet.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_CUT = {
    "length": "cut at --max-tokens",
    "context": f"cut, since the model's context is full; {CLEAR} begins anew",
    "interrupt": "stopped",
}


class ChatConfig(Config):
    """Whom to talk to, and how answers are drawn."""

    model: str = Field("embedded", description="Model: embedded, a folder, a GGUF file, or a name on the hub.")
    adapter: Path | None = Field(None, description="Adapter to put on the model: the folder adapter/ of a training.")
    template: TemplateName = Field(
        "auto",
        description="How messages become prompts: chat, alpaca, plain or a Jinja file; auto is the one trained with, "
        "else chat.",
    )
    system: str | None = Field(None, description="System message; default the chat template's own, if it has one.")
    max_tokens: int = Field(512, ge=1, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, description="0 always takes the likeliest token; 1 draws as likely as it is.")
    seed: int = Field(0, ge=0, description="Seed of what is drawn.")
    threads: int | None = Field(None, ge=1, description="CPU threads; default as many as there are cores.")


@dataclass(frozen=True, slots=True)
class ChatSummary:
    """What was said, over all conversations between two /clear."""

    answers: int
    tokens: int


class ContextFull(Error):
    """The conversation no longer fits the model's context."""


@dataclass(slots=True)
class Conversation:
    """A model, and what was said to it and by it.

    Attributes:
        model: In evaluation mode, with or without adapter.
        context_length: Most tokens that the model takes; None where its configuration sets no limit.
        messages: Said so far.
        tokens: Generated so far.
        ended_by: What ended the last answer: "eos", "length" (max_tokens), "context" or "interrupt".
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    config: ChatConfig
    context_length: int | None
    eos_ids: Collection[int]
    messages: list[Message] = field(default_factory=list)
    tokens: int = 0
    ended_by: str = ""
    _seen: list[int] = field(default_factory=list)
    _cache: Any = None

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.messages = [{"role": "system", "content": self.config.system}] if self.config.system else []

    def ask(self, text: str) -> Generator[str]:
        """Say something; yields the answer piece by piece, as it comes.

        What was answered when the caller stops asking for pieces stays in the conversation.

        Raises:
            ContextFull: When the message does not fit any more; it is not kept.
            UsageError: When the template cannot render the conversation.
        """
        messages: list[Message] = [*self.messages, {"role": "user", "content": text}]
        prompt: list[int] = self.tokenizer(
            self.renderer.turns(messages), add_special_tokens=False, verbose=False
        ).input_ids
        if self.context_length is not None and len(prompt) >= self.context_length:
            raise ContextFull(
                f"the conversation has {len(prompt)} tokens with this message, the model's context is "
                f"{self.context_length}; {CLEAR} begins anew"
            )
        answer: list[int] = []
        shown = ""
        self.ended_by = "interrupt"
        try:
            for token in self._generate(prompt):
                answer.append(token)
                whole = self.tokenizer.decode(answer, skip_special_tokens=True)
                if not whole.endswith(_INCOMPLETE):
                    yield whole[len(shown) :]
                    shown = whole
        finally:
            self.tokens += len(answer)
            said = self.tokenizer.decode(answer, skip_special_tokens=True)
            self.messages = [*messages, {"role": "assistant", "content": said}]
        if said != shown:
            yield said[len(shown) :]

    def _generate(self, prompt: list[int]) -> Iterator[int]:
        """Tokens of an answer; the keys and values of what was seen before are not computed again."""
        import torch

        room = self.config.max_tokens
        if self.context_length is not None:
            room = min(room, self.context_length - len(prompt))
        begins_alike = self._cache is not None and prompt[: len(self._seen)] == self._seen
        cache, seen = (self._cache, self._seen) if begins_alike and len(prompt) > len(self._seen) else (None, [])
        fed = prompt[len(seen) :]
        for count in range(1, room + 1):
            # An interrupted pass leaves some layers with more than others, so the cache is good after a whole one only.
            self._cache = None
            with torch.inference_mode():
                output = self.model(
                    input_ids=torch.tensor([fed], device=self.model.device), past_key_values=cache, use_cache=True
                )
            cache, seen = output.past_key_values, [*seen, *fed]
            token = self._chosen(output.logits[0, -1])
            fed = [token]
            if token in self.eos_ids:
                self.ended_by = "eos"
            elif count == room:
                self.ended_by = "length" if room == self.config.max_tokens else "context"
            self._cache, self._seen = cache, seen
            if token not in self.eos_ids:
                yield token
            if self.ended_by != "interrupt":
                return

    def _chosen(self, logits: Any) -> int:
        """A token by its logits (vocabulary)."""
        import torch

        if not logits.isfinite().all():
            raise Error("the model's logits are no finite numbers; its weights are broken")
        if self.config.temperature == 0:
            return int(logits.argmax())
        return int(torch.multinomial((logits.float() / self.config.temperature).softmax(-1), 1))


def chat(config: ChatConfig) -> ChatSummary:
    r"""Talk to a model.

    In a terminal, answers appear as they are written. From a pipe, every line is a message of one conversation, and
    its answer is one line, with backslashes and line breaks as `\\\\` and `\\n`.

    Raises:
        InputError: For a model or an adapter that cannot be used.
        UsageError: For a system message that the template has no place for.
        ContextFull: When a message from a pipe does not fit any more.
    """
    conversation = _conversation(config)
    answers = _talk(conversation) if sys.stdin.isatty() else _answer_lines(conversation)
    return ChatSummary(answers, conversation.tokens)


def describe(result: ChatSummary) -> str:
    """Nothing more: the conversation has been shown."""
    return ""


def _conversation(config: ChatConfig) -> Conversation:
    source = resolve(config.model)
    if config.adapter:
        check_base(config.adapter, source)
    tokenizer = tokenizer_of(source, config.adapter)
    renderer = renderer_of(tokenizer, source, config.adapter, config.template)
    if config.system is not None:
        if not config.system.strip():
            raise UsageError("--system: is empty; leave it out for the template's own")
        renderer.turns([{"role": "system", "content": config.system}, {"role": "user", "content": ""}])

    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model: Any = load_model(source)
    if torch.cuda.is_available():
        model = model.to("cuda")
    context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    ended = model.generation_config.eos_token_id
    eos_ids = {tokenizer.eos_token_id, *(ended if isinstance(ended, list) else [ended])} - {None}
    if config.adapter:
        model = load_adapter(model, config.adapter)
    return Conversation(model.eval(), tokenizer, renderer, config, context_length, eos_ids)


def _talk(conversation: Conversation) -> int:
    """Read messages from a terminal until Ctrl-D, or Ctrl-C where no answer is being written."""
    with suppress(ImportError):
        import readline  # noqa: F401  input() then edits lines and remembers them
    _note(HINT)
    answers = 0
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return answers
        if text.strip() == CLEAR:
            conversation.clear()
        elif text.strip():
            try:
                with suppress(KeyboardInterrupt), closing(conversation.ask(text)) as pieces:
                    for piece in pieces:
                        print(printable(piece), end="", flush=True)
            except ContextFull as error:
                _note(str(error))
                continue
            print()
            answers += 1
            if conversation.ended_by in _CUT:
                _note(f"({_CUT[conversation.ended_by]})")


def _note(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _answer_lines(conversation: Conversation) -> int:
    """Answer each line of standard input in one line."""
    answers = 0
    for line in sys.stdin:
        text = line.rstrip("\r\n")
        if text.strip() == CLEAR:
            conversation.clear()
        elif text.strip():
            answer = "".join(conversation.ask(text))
            print(printable(answer.replace("\\", "\\\\").replace("\n", "\\n")), flush=True)
            answers += 1
            if conversation.ended_by in _CUT:
                logger.warning("answer %d is %s", answers, _CUT[conversation.ended_by])
    return answers
