"""What the plain line of a long command says."""

from __future__ import annotations

import pytest

from selfinstruct import progress
from selfinstruct.progress import Progress


@pytest.mark.parametrize(
    ("done_before", "done", "left"),
    [
        (0, 0, "left: unknown"),  # nothing says how long one takes, however long it has taken
        (3, 3, "left: unknown"),
        (0, 1, "27:00 left"),
        (3, 5, "7:30 left"),
        (0, 10, ""),
    ],
)
def test_time_left_is_told_once_there_is_a_pace(monkeypatch, capsys, done_before, done, left):
    line = Progress("accepted", 10, done_before)
    started = progress.time.monotonic()
    monkeypatch.setattr(line, "_started", started)
    monkeypatch.setattr(progress.time, "monotonic", lambda: started + 180.0)
    line.update(done, "detail")
    assert capsys.readouterr().err == f"accepted {done}/10  detail{'  ' + left if left else ''}\n"
