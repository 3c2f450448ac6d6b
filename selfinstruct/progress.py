"""How far a long command is: a bar on a terminal, a plain line every few seconds elsewhere, nothing with --quiet."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_INTERVAL_S = 5.0

logger = logging.getLogger(__name__)


class Progress:
    """Progress on stderr; use it as a context.

    Args:
        unit: What is counted, such as "step".
        total: How many there are.
        done: How many were done before, by an earlier call.
        shown: False on all but the main process.
    """

    def __init__(self, unit: str, total: int, done: int = 0, shown: bool = True) -> None:
        self._unit, self._total, self._done_before = unit, total, done
        self._shown = shown and logger.isEnabledFor(logging.WARNING)
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Bar(*columns, console=console) if self._shown and console.is_terminal else None
        self._task = self._bar.add_task(unit, total=total, completed=done, detail="") if self._bar else None
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, detail: str, last: bool = False) -> None:
        """Say how many are done, and a few words about it; the last time in any case."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, detail=detail)
        elif self._shown and (last or done == self._total or time.monotonic() - self._last_line >= LINE_INTERVAL_S):
            self._last_line = time.monotonic()
            print(f"{self._unit} {done}/{self._total}  {detail}{self._left(done)}", file=sys.stderr, flush=True)

    def _left(self, done: int) -> str:
        """Time left at the pace so far, if there is one."""
        if done == self._total:
            return ""
        if done <= self._done_before:
            return "  left: unknown"
        pace = (time.monotonic() - self._started) / (done - self._done_before)
        minutes, seconds = divmod(round(pace * (self._total - done)), 60)
        return f"  {minutes}:{seconds:02} left"
