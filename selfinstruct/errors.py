"""Every error a user can meet, and the exit code it ends with.

    Error                   1    anything that went wrong
    |-- UsageError          2    a flag, a configuration or a combination of them
    |   `-- InputError      2    a file: names file, line, field and remedy
    |-- AuthenticationError 3    the endpoint refused the key, or there is none
    |-- CapReached          4    --max-cost-usd or --max-requests
    |-- StoppedEarly        5    pool saturated or endpoint lost; the work is kept
    |-- Interrupted       130    Ctrl-C or SIGTERM; the work is kept
    `-- TeacherError        1    one request to the endpoint
        |-- TransientError       worth asking again: 429, 5xx, time-outs, dropped connections
        `-- PermanentError       asking again gives the same answer: 400, 404, context too long

Errors of other libraries are converted once, at the edge where they arise.
"""

from __future__ import annotations

from pathlib import Path


class Error(Exception):
    """Base of all errors of this project; its text is meant for the user."""

    exit_code = 1


class UsageError(Error):
    """A flag, a configuration value, or a combination of them that cannot work."""

    exit_code = 2


class InputError(UsageError):
    """Something in a file that was read.

    Args:
        problem: What is wrong, as the end of a sentence about the place.
        path: The file.
        line: 1-based line, where there is one.
        field: The field, where there is one.
        remedy: What to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.path, self.line, self.field, self.remedy = problem, path, line, field, remedy
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        where = "" if field is None else f"field '{field}': "
        advice = "" if remedy is None else f". {remedy[0].upper()}{remedy[1:]}"
        super().__init__(f"{place}{where}{problem}{advice}")


class AuthenticationError(Error):
    """The endpoint refused the key, or no key is set."""

    exit_code = 3


class CapReached(Error):
    """The next request could pass --max-cost-usd or --max-requests."""

    exit_code = 4


class StoppedEarly(Error):
    """The pool is saturated or the endpoint stayed away; everything done so far is kept."""

    exit_code = 5


class Interrupted(Error):
    """The user or the system asked for an end; everything done so far is kept."""

    exit_code = 130


class TeacherError(Error):
    """One request to the endpoint failed."""


class TransientError(TeacherError):
    """Worth asking again.

    Args:
        message: What the endpoint or the network said, without secrets.
        retry_after_s: Seconds that the endpoint asked us to wait, if it did.
        refused: Whether it is certain that no reply was made, so that none can be billed.
        overload: Whether it is a sign that fewer requests at once would fare better.
    """

    def __init__(
        self, message: str, retry_after_s: float | None = None, *, refused: bool = False, overload: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s, self.refused, self.overload = retry_after_s, refused, overload


class PermanentError(TeacherError):
    """Asking again would give the same answer.

    Args:
        message: What the endpoint said, without secrets.
        parameter: The request parameter that the endpoint refused, if it named one.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
