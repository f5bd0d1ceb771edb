"""Progress where there is no terminal: few lines, and the last one is right."""

from __future__ import annotations

import io

from pipelines.cli.progress_bars import Bars, Lines


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def test_lines_come_every_few_seconds():
    """Twelve seconds of work are three lines, however many steps it has."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("training", 12_000)
    for _ in range(12):
        clock.now += 1.0
        lines.advance(1000, loss=0.5)
    assert stream.getvalue().splitlines() == [
        "training",
        "training  5,000 of 12,000  7 s left  loss 0.5",
        "training  10,000 of 12,000  2 s left  loss 0.5",
    ]


def test_work_of_unknown_length_has_no_time_left():
    """Without a total there is a count and no promise."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("reading")
    clock.now = 6.0
    lines.advance(1234)
    assert stream.getvalue().splitlines() == ["reading", "reading  1,234"]


def test_bars_survive_work_without_a_start(capsys):
    """A line may be said, and units counted, before any stretch of work has begun."""
    with Bars() as bars:
        bars.advance(1)
        bars.say("[click] is a task, not a colour")
        bars.start("epoch 1")
        bars.advance(3, loss=0.25)
    assert "[click] is a task, not a colour" in capsys.readouterr().err
