"""Answers of a model as they come: kept on disk, so that a killed evaluation goes on, and in a cache for others."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import TypeAdapter, ValidationError

from selfinstruct.errors import InputError
from selfinstruct.files import digest, first_problem, hold, to_json_line

Stop = Literal["eos", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of one question; how it is scored comes later.

    Attributes:
        text: A generated answer; empty where options were ranked.
        stop: What ended a generated answer: "eos", or "length" when it was cut.
        prompt_tokens: Of the prompt; None where an endpoint does not tell.
        answer_tokens: Of a generated answer, with the token that ended it; None as above, and with options.
        option_scores: Summed log-likelihood of each option, where options were ranked.
        option_tokens: Tokens of each of them.
        error: Why there is no answer, where the endpoint refused the question for good.
    """

    text: str = ""
    stop: Stop | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    option_scores: tuple[float, ...] = ()
    option_tokens: tuple[int, ...] = ()
    error: str | None = None


Keep = Callable[[Mapping[str, Answer]], None]
"""Takes new answers by the key of their question."""

_ADAPTER = TypeAdapter(Answer)


@contextmanager
def partial_answers(path: Path) -> Iterator[tuple[dict[str, Answer], Keep]]:
    """Answers of an unfinished evaluation by key, and what keeps more of them; a torn last line is dropped.

    Raises:
        InputError: For a wrong line.
        UsageError: When another process is appending.
    """
    with open(path, "a+", encoding="utf-8") as file:
        hold(file, path.parent)
        yield _read(file, path), lambda answers: _append(file, answers)


class AnswerCache:
    """Answers that evaluations of one model share, in a file of their own.

    Args:
        folder: Of the cache; made when missing.
        identity: All that shapes an answer besides its question: model, adapter, and where it was computed.
    """

    def __init__(self, folder: Path, identity: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{digest(identity, 32)}.jsonl"
        with self._locked() as file:
            self.answers = _read(file, self._path)

    def keep(self, answers: Mapping[str, Answer]) -> None:
        """Add answers; those of failed requests are left out."""
        with self._locked() as file:
            _append(file, {key: answer for key, answer in answers.items() if answer.error is None})

    @contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        """The file, held for a moment: several evaluations may add to it."""
        with open(self._path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_torn_line(file, self._path)
            yield file


def _read(file: IO[str], path: Path) -> dict[str, Answer]:
    _drop_torn_line(file, path)
    answers = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        values = json.loads(line)
        key = values.pop("key", "")
        try:
            answers[key] = _ADAPTER.validate_python(values)
        except ValidationError as error:
            field, problem = first_problem(error)
            remedy = "remove the file; what it holds is asked again"
            raise InputError(problem, path=path, line=number, field=field, remedy=remedy) from error
    return answers


def _drop_torn_line(file: IO[str], path: Path) -> None:
    """End the file after its last whole line: a killed process leaves half of one."""
    written = path.read_bytes()
    os.truncate(path, written.rfind(b"\n") + 1)


def _append(file: IO[str], answers: Mapping[str, Answer]) -> None:
    file.write("".join(to_json_line({"key": key, **asdict(answer)}) + "\n" for key, answer in answers.items()))
    file.flush()
