"""What every client of the benchmark is given, and how it says that it is ready and done; standard library only.

A client prepares itself (imports, client objects, a first request), calls `Cell.ready`, asks all prompts, and calls
`Cell.done` when the answers are in its hands and wherever it stores them. It measures nothing: the harness and the
server do, in the same way for all.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from random import Random
from typing import NoReturn, TextIO

PROMPT_CHARACTERS = 1000
WARM_UP = "Task 0: say that you are there."
_PHRASES = (
    "write a task that asks for a table", "the input may be long", "and about rivers, trains or bread",
    "in clear words", "say what form the answer should have", "but not how to find it", "with three numbers in it",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of one client.

    Attributes:
        base_url: Of the server, up to and including "/v1".
        model: Name of the model to ask for.
        concurrency: Most requests in flight.
        n_requests: How many prompts.
        seed: Decides the prompts.
        max_tokens: Sent with each prompt.
        folder: Where the client may store things; empty at first.
    """

    base_url: str
    model: str
    concurrency: int
    n_requests: int
    seed: int
    max_tokens: int
    folder: str

    def prompts(self) -> list[str]:
        """Distinct prompts of about `PROMPT_CHARACTERS` characters, each with its number."""
        return [_prompt(self.seed, number) for number in range(1, self.n_requests + 1)]

    def ready(self) -> None:
        """Wait for the word to begin."""
        _say({"ready": True})
        if sys.stdin.readline().strip() != "go":
            sys.exit("the harness is gone")

    def done(self, answers: list[str]) -> NoReturn:
        """Report the answers, stay alive until the CPU time has been read, and end at once."""
        numbers = {match[1] for answer in answers if (match := re.match(r"Answer to task (\d+):", answer or ""))}
        _say({"answers": len(numbers)})
        sys.stdin.readline()
        os._exit(0)


def chat(prompt: str) -> list[dict[str, str]]:
    """A prompt as a chat of one message."""
    return [{"role": "user", "content": prompt}]


def given() -> Cell:
    """The cell of the command line. What a library prints goes to standard error from now on."""
    cell = Cell(**json.loads(sys.argv[-1]))
    global _channel
    _channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return cell


_channel: TextIO = sys.stdout


def _say(values: dict[str, object]) -> None:
    print(json.dumps(values), file=_channel, flush=True)


def _prompt(seed: int, number: int) -> str:
    rng = Random(f"{seed}/{number}")
    text = " ".join(rng.choices(_PHRASES, k=PROMPT_CHARACTERS // min(map(len, _PHRASES))))
    return f"Task {number}: {text}"[:PROMPT_CHARACTERS]
