"""How long work is shown: bars on a terminal, a plain line every few seconds where there is none. Always stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rec import progress as contract

EVERY = 5.0  # seconds between two plain lines


@contextmanager
def progress() -> Iterator[contract.Progress]:
    """What work reports to while the block runs."""
    if not sys.stderr.isatty():
        yield Lines(sys.stderr, time.monotonic)
        return
    with Bars() as bars:
        yield bars


class Bars:
    """One moving bar for the stretch of work that is going on; finished stretches stay as lines."""

    def __init__(self) -> None:
        """Draw on stderr."""
        self._drawn = Progress(
            SpinnerColumn(finished_text="[green]done"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False, compact=True),
            TextColumn("[dim]{task.fields[figures]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, with what was reached left on the screen."""
        self._finish()
        self._drawn.stop()

    def start(self, what: str, total: int | None = None) -> None:
        """A new bar."""
        self._finish()
        self._task = self._drawn.add_task(what, total=total, count="", figures="")

    def advance(self, units: int, **figures: float) -> None:
        """Move the bar on and show the figures beside it."""
        if self._task is None:
            return
        self._drawn.advance(self._task, units)
        shown = self._drawn.tasks[self._drawn.task_ids.index(self._task)]
        self._drawn.update(self._task, count=_count(int(shown.completed), shown.total), figures=_figures(figures))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._drawn.console.print(line, highlight=False, markup=False)

    def _finish(self) -> None:
        if self._task is None:
            return
        shown = self._drawn.tasks[self._drawn.task_ids.index(self._task)]
        if shown.total is None:
            self._drawn.update(self._task, total=max(shown.completed, 1), completed=max(shown.completed, 1))
        self._drawn.stop_task(self._task)
        self._task = None


class Lines:
    """Plain lines: one when work begins, then one every few seconds, then nothing to clean up."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        """Write to `stream`; `clock` gives seconds."""
        self._stream, self._clock = stream, clock
        self._what, self._total, self._done = "", None, 0
        self._began = self._said = clock()

    def start(self, what: str, total: int | None = None) -> None:
        """Say what begins."""
        self._what, self._total, self._done = what, total, 0
        self._began = self._said = self._clock()
        self.say(what)

    def advance(self, units: int, **figures: float) -> None:
        """Say how far it is, if the last line is some seconds old."""
        self._done += units
        now = self._clock()
        if now - self._said < EVERY:
            return
        self._said = now
        left = self._left(now)
        self.say(
            "  ".join(part for part in (self._what, _count(self._done, self._total), left, _figures(figures)) if part)
        )

    def say(self, line: str) -> None:
        """Write a line now."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def _left(self, now: float) -> str:
        if not self._total or not self._done:
            return ""
        seconds = (now - self._began) * max(self._total - self._done, 0) / self._done
        return f"{seconds:.0f} s left"


def _count(done: int, total: float | None) -> str:
    return f"{done:,}" if not total else f"{done:,} of {int(total):,}"


def _figures(figures: dict[str, float]) -> str:
    """Figures as `loss 0.123  rows/s 12,345`.

    >>> _figures({"loss": 0.12345, "rate": 12345.6})
    'loss 0.1235  rate 12,346'
    """
    return "  ".join(
        f"{name} {value:,.0f}" if abs(value) >= 100 else f"{name} {value:.4g}" for name, value in figures.items()
    )
