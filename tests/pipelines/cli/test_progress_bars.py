"""What a person sees of long work: on a terminal one bar and the lines, elsewhere a line every few seconds."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from pipelines.cli import progress_bars
from pipelines.cli.progress_bars import Bars, Lines


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def screen(written: str) -> list[str]:
    """The lines a terminal shows after what was written to it: carriage returns, lines up, and erased lines obeyed."""
    rows, row = [""], 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif token == "\r":
            column = 0
        elif match := re.fullmatch(r"\x1b\[(\d*)A", token):
            row -= int(match[1] or 1)
        elif token == "\x1b[2K":
            rows[row] = ""
        elif not token.startswith("\x1b"):
            rows[row] = token if not rows[row] or column == 0 else rows[row] + token
        column = 0 if token == "\r" else 1
    return [line.rstrip() for line in rows if line.strip()]


@pytest.fixture
def terminal():
    """A console as wide as a terminal, and what is written to it."""
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=120, color_system=None), stream


def test_finished_bars_do_not_pile_up_and_lines_stay_in_order(terminal):
    """After ten epochs a terminal shows ten lines, in the order they were said, and no bar."""
    console, stream = terminal
    with Bars(console) as bars:
        for epoch in range(1, 11):
            bars.start(f"epoch {epoch}", 100, "requests")
            bars.advance(100, loss=0.5)
            bars.start("validation", 10, "requests")
            bars.advance(10)
            bars.say(f"epoch {epoch}: 1.2 s, [click] 0.5")
    assert screen(stream.getvalue()) == [f"epoch {epoch}: 1.2 s, [click] 0.5" for epoch in range(1, 11)]


def test_a_bar_shows_units_and_how_fast(terminal):
    """Requests of requests, a rate where it says something, and the figures beside it."""
    console, stream = terminal
    with Bars(console) as bars:
        bars.start("epoch 1", 4000, "requests")
        bars.advance(1000, loss=0.25)
        bars._drawn.refresh()
        shown = stream.getvalue()
    assert re.search(r"epoch 1 .*1,000 of 4,000 requests  requests/s [\d,]+  loss 0\.25", shown)


def test_work_of_one_unit_pulses(terminal):
    """A bar of one task would stand at nothing, then jump."""
    console, _ = terminal
    with Bars(console) as bars:
        bars.start("reading", 1, "tasks")
        (task,) = bars._drawn.tasks
        assert task.total is None
        bars.start("requests", 2, "tasks")
        (task,) = bars._drawn.tasks
        assert task.total == 2


def test_bars_survive_work_without_a_start(terminal):
    """A line may be said, and units counted, before any stretch of work has begun."""
    console, stream = terminal
    with Bars(console) as bars:
        bars.advance(1)
        bars.say("[click] is a task, not a colour")
    assert screen(stream.getvalue()) == ["[click] is a task, not a colour"]


def test_lines_come_every_few_seconds():
    """Twelve seconds of work are three lines, however many steps it has."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("epoch 1", 12_000, "requests")
    for _ in range(12):
        clock.now += 1.0
        lines.advance(1000, loss=0.5)
    assert stream.getvalue().splitlines() == [
        "epoch 1",
        "epoch 1  5 s  5,000 of 12,000 requests  requests/s 1,000  loss 0.5  7 s left",
        "epoch 1  10 s  10,000 of 12,000 requests  requests/s 1,000  loss 0.5  2 s left",
    ]


def test_a_rate_that_work_reports_itself_is_not_said_twice():
    """Candidates per second are enough."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("scoring", 10_000, "requests")
    clock.now = 6.0
    lines.advance(5000, **{"candidates/s": 9000.0})
    assert stream.getvalue().splitlines()[1] == "scoring  6 s  5,000 of 10,000 requests  candidates/s 9,000  6 s left"


def test_work_of_unknown_length_has_no_time_left():
    """Without a total there is a count and no promise."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("drawing")
    clock.now = 6.0
    lines.advance(1234)
    assert stream.getvalue().splitlines() == ["drawing", "drawing  6 s  1,234"]


def test_a_few_large_steps_promise_no_end():
    """One of three steps says nothing of the other two."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("exporting", 3, "steps")
    clock.now = 6.0
    lines.advance(1)
    assert stream.getvalue().splitlines() == ["exporting", "exporting  6 s  1 of 3 steps"]


def test_work_that_does_not_move_is_told_of_too(monkeypatch):
    """A long step without a terminal says every few seconds that it is alive, and nothing once it has ended."""
    monkeypatch.setattr(progress_bars, "EVERY", 0.02)
    stream = io.StringIO()
    with Lines(stream, time.monotonic) as lines:
        lines.start("requests", 1, "tasks")
        end = time.monotonic() + 30
        while stream.getvalue().count("\n") < 3 and time.monotonic() < end:
            time.sleep(0.01)
    written = stream.getvalue().splitlines()
    assert written[0] == "requests"
    assert re.fullmatch(r"requests  0 s  0 of 1 tasks", written[1])
