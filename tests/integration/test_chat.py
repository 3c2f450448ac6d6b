"""`finetune chat` with a real tiny model: in a real terminal, from a pipe, and piece by piece."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from finetune.conversation import ChatConfig, ContextFull, Conversation, _conversation
from selfinstruct.errors import UsageError
from tests.generating import ROOT
from tests.tiny import build_tiny_llama

MAX_TOKENS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


def by_transformers(model: Path, messages: list[dict[str, str]], max_tokens: int = MAX_TOKENS) -> str:
    """The greedy answer of transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    whole = AutoModelForCausalLM.from_pretrained(model).generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    return str(tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def conversation(model: Path, **options: Any) -> Conversation:
    return _conversation(ChatConfig.model_validate({"model": str(model), "max_tokens": MAX_TOKENS} | options))


def test_every_turn_is_that_of_the_chat_template(model: Path) -> None:
    talk = conversation(model, system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}]
    for text in ("Capital of Peru?", "And of Cuba?", "Why?"):
        messages.append({"role": "user", "content": text})
        expected = by_transformers(model, messages)
        assert "".join(talk.ask(text)) == expected
        messages.append({"role": "assistant", "content": expected})
    assert talk.messages == messages


def saying(monkeypatch: pytest.MonkeyPatch, talk: Conversation, text: str) -> None:
    """Let the model say a text."""
    tokens = talk.tokenizer(text, add_special_tokens=False).input_ids
    choices = cycle([*tokens, talk.tokenizer.eos_token_id])
    monkeypatch.setattr(Conversation, "_chosen", lambda _self, _logits: next(choices))


def test_what_was_seen_is_not_computed_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = conversation(model)
    saying(monkeypatch, talk, "Red.")
    fed: list[int] = []
    talk.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    list(talk.ask("Name a colour. " * 10))
    first = fed[0]
    fed.clear()
    list(talk.ask("x"))
    assert first > 100
    assert fed[0] < 40


def test_an_answer_that_is_broken_off_stays_and_the_next_is_right(model: Path) -> None:
    talk = conversation(model)
    pieces = talk.ask("Capital of Peru?")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert talk.ended_by == "interrupt"
    assert talk.messages[-1] == {"role": "assistant", "content": said}
    expected = by_transformers(model, [*talk.messages, {"role": "user", "content": "Go on."}])
    assert "".join(talk.ask("Go on.")) == expected


def test_temperature_draws_and_a_seed_repeats(model: Path) -> None:
    def say(**options: Any) -> str:
        return "".join(conversation(model, **options).ask("Hello"))

    assert say(temperature=20.0, seed=1) == say(temperature=20.0, seed=1) != say(temperature=20.0, seed=2)
    assert say(seed=1) == say(seed=2) == by_transformers(model, [{"role": "user", "content": "Hello"}])


def test_characters_of_several_tokens_come_whole(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = conversation(model)
    saying(monkeypatch, talk, "a長é")
    assert len(talk.tokenizer("a長é", add_special_tokens=False).input_ids) == 6
    assert list(talk.ask("x")) == ["a", "長", "é"]
    assert talk.ended_by == "eos"


def test_a_full_context_is_told(model: Path) -> None:
    talk = conversation(model, max_tokens=1000)
    list(talk.ask("word " * 90))
    assert talk.ended_by == "context"
    before = list(talk.messages)
    with pytest.raises(ContextFull, match=r"the model's context is 512; /clear begins anew"):
        list(talk.ask("more"))
    assert talk.messages == before
    talk.clear()
    assert talk.messages == []


def test_alpaca_has_no_place_for_a_system_message(model: Path) -> None:
    with pytest.raises(UsageError, match="no place for a system message"):
        conversation(model, template="alpaca", system="Be brief.")
    list(conversation(model, template="alpaca").ask("Hello"))


# From a pipe


def piped(model: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finetune", "chat", "--model", str(model), f"--max-tokens={MAX_TOKENS}", *flags]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def test_a_pipe_gets_one_line_an_answer(model: Path) -> None:
    done = piped(model, "Capital of Peru?\n\nAnd of Cuba?\n/clear\nCapital of Peru?\n")
    assert done.returncode == 0, done.stderr
    first, second, again = done.stdout.splitlines()
    assert first == again
    talk = conversation(model)
    assert first == shown("".join(talk.ask("Capital of Peru?")))
    assert second == shown("".join(talk.ask("And of Cuba?")))


def shown(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def test_a_message_from_a_pipe_that_does_not_fit_is_an_error(model: Path) -> None:
    done = piped(model, "word " * 200 + "\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the model's context is 512" in done.stderr


# In a terminal


class Terminal:
    """The other end of a pseudo-terminal in which the command runs."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid, self._descriptor = pid, descriptor
        self.screen = ""
        self._found = 0

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text has come after the last one waited for."""
        assert self._has_come(text, 120), f"{text!r} did not come: {self.screen!r}"

    def press(self, key: str, text: str) -> None:
        """Press a key that brings a text, again where it brings none.

        Ctrl-C in the instant between readline's prompt and its wait is noticed with the next key only.
        """
        for _ in range(12):
            self.type(key)
            if self._has_come(text, 10):
                return
        raise AssertionError(f"{text!r} did not come: {self.screen!r}")

    def exit_code(self, timeout_s: float = 120) -> int:
        deadline = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < deadline, f"the command did not end: {self.screen!r}"
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _has_come(self, text: str, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while (place := self.screen.find(text, self._found)) < 0:
            if time.monotonic() > deadline or not self._read():
                return False
        self._found = place + len(text)
        return True

    def _read(self) -> bool:
        """Whether the command is still there."""
        if not select.select([self._descriptor], [], [], 0.1)[0]:
            return True
        try:
            self.screen += os.read(self._descriptor, 65536).decode()
        except OSError:  # how Linux says that the other end is closed
            return False
        return True


@contextmanager
def terminal(model: Path, *flags: str) -> Iterator[Terminal]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["TERM"] = "dumb"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
        command = [sys.executable, "-W", "ignore", "-m", "finetune", "chat", "--model", str(model), *flags]
        os.execv(sys.executable, command)
    try:
        yield Terminal(pid, descriptor)
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(descriptor)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_terminal_session(model: Path) -> None:
    line = shown("".join(conversation(model).ask("Capital of Peru?"))).splitlines()[0]
    with terminal(model, f"--max-tokens={MAX_TOKENS}") as screen:
        screen.wait_for("Ctrl-D leaves")
        screen.wait_for("> ")  # what is typed before may be lost when the terminal's mode changes
        screen.type("Capital of Peru?\n")
        screen.wait_for("(cut at --max-tokens)")
        assert f"\n{line}" in screen.screen
        screen.wait_for("> ")
        screen.type("/clear\n")
        screen.wait_for("> ")
        screen.type("Capital of Peru?\n")
        screen.wait_for("(cut at --max-tokens)")
        assert screen.screen.count(f"\n{line}") == 2
        screen.wait_for("> ")
        screen.type("\x04")
        assert screen.exit_code() == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ctrl_c_stops_the_answer_and_then_leaves(model: Path, tmp_path: Path) -> None:
    """The model repeats one token without end, an escape sequence that would clear the screen among the text."""
    endless = endless_model(model, tmp_path / "endless")
    with terminal(endless, "--max-tokens=100000") as screen:
        screen.wait_for("Ctrl-D leaves")
        screen.wait_for("> ")  # what is typed before may be lost when the terminal's mode changes
        screen.type("Hello\n")
        screen.wait_for("\\x1b\\x1b")
        screen.type("\x03")
        screen.wait_for("(stopped)")
        screen.wait_for("> ")
        screen.press("\x03", "\n")
        assert screen.exit_code() == 0
    assert "\x1b\x1b" not in screen.screen


def endless_model(model: Path, folder: Path) -> Path:
    """A model that says ESC again and again: every token looks alike to it, and no layer adds anything."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    (escape,) = tokenizer("\x1b", add_special_tokens=False).input_ids
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id, max_position_embeddings=1_000_000,
    )  # fmt: skip
    llama = LlamaForCausalLM(config)
    for name, weight in llama.named_parameters():
        weight.data.fill_(1.0 if "norm" in name or "embed" in name else 0.0)
    llama.lm_head.weight.data[escape] = 1.0
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
