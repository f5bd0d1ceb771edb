"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rec import progress as contract

EVERY = 5.0  # seconds between two plain lines
_TELLING = 10  # units from which on those that are left tell how long they take
_RATED = 10.0  # units per second from which on a rate says more than a count


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[contract.Progress]:
    """Context manager: the Progress of a terminal or of a log; `quiet` where another process shows the same."""
    if quiet:
        yield contract.Silent()
    elif sys.stderr.isatty():
        with Bars(Console(stderr=True)) as bars:
            yield bars
    else:
        with Lines(sys.stderr, time.monotonic) as lines:
            yield lines


@dataclass
class Stretch:
    """A stage: its name, units done, and start time."""

    what: str
    total: int | None
    unit: str
    began: float
    done: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    def text(self, now: float) -> str:
        """`5,000 of 12,000 requests  1,000 requests/s  loss 0.5`."""
        rate = self.done / max(now - self.began, 1e-9)
        rated = self.unit and rate >= _RATED and not any(name.endswith("/s") for name in self.figures)
        shown = {**({f"{self.unit}/s": rate} if rated else {}), **self.figures}
        return "  ".join(part for part in (_count(self), _figures(shown)) if part)


class Bars:
    """One progress bar, for the current stage; it disappears at the stage's end. Lines stay, in order."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self._drawn = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._bar: TaskID | None = None
        self._stretch = Stretch("", None, "", time.monotonic())

    def __enter__(self) -> Self:
        """Start drawing."""
        self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; only lines remain."""
        self._drawn.stop()

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Replace the bar by a new one."""
        if self._bar is not None:
            self._drawn.remove_task(self._bar)
        self._stretch = Stretch(what, total, unit, time.monotonic())
        # of one unit a bar would jump from nothing to all: it pulses instead
        self._bar = self._drawn.add_task(what, total=total if total != 1 else None, text="")

    def advance(self, units: int, **figures: float) -> None:
        """Move the bar on and show the figures beside it."""
        if self._bar is None:
            return
        self._stretch.done += units
        self._stretch.figures.update(figures)
        self._drawn.update(self._bar, completed=self._stretch.done, text=self._stretch.text(time.monotonic()))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._drawn.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Lines:
    """Plain lines: one at the start of a stage, then one every few seconds, even without progress."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        """Write to `stream`; `clock` gives seconds."""
        self._stream, self._clock = stream, clock
        self._stretch: Stretch | None = None
        self._shown_at = clock()
        self._lock = threading.RLock()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Start the thread that reports stages without progress."""
        threading.Thread(target=self._beat, daemon=True, name="progress").start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reporting."""
        self._ended.set()

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Write the stage's name."""
        with self._lock:
            self._shown_at = self._clock()
            self._stretch = Stretch(what, total, unit, self._shown_at)
            self.say(what)

    def advance(self, units: int, **figures: float) -> None:
        """Say how far it is, if the last line is some seconds old."""
        with self._lock:
            if self._stretch is not None:
                self._stretch.done += units
                self._stretch.figures.update(figures)
                self.tell()

    def tell(self) -> None:
        """Say how far it is, if the last line is some seconds old."""
        with self._lock:
            now, stretch = self._clock(), self._stretch
            if stretch is None or now - self._shown_at < EVERY or self._ended.is_set():
                return
            self._shown_at = now
            elapsed = f"{now - stretch.began:.0f} s"
            parts = (stretch.what, elapsed, stretch.text(now), _left(stretch, now))
            self.say("  ".join(part for part in parts if part))

    def say(self, line: str) -> None:
        """Write a line now."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except BrokenPipeError:
                raise  # whoever read us has gone
            except OSError:
                self._ended.set()  # a full disk under a log of progress: the work goes on without

    def _beat(self) -> None:
        while not self._ended.wait(EVERY):
            self.tell()


def _left(stretch: Stretch, now: float) -> str:
    if not stretch.total or stretch.total < _TELLING or not 0 < stretch.done < stretch.total:
        return ""
    seconds = (now - stretch.began) * (stretch.total - stretch.done) / stretch.done
    return f"{seconds:.0f} s left"


def _count(stretch: Stretch) -> str:
    """Units done, and the total if it is known."""
    if not stretch.done and not stretch.total:
        return ""
    count = f"{stretch.done:,} of {stretch.total:,}" if stretch.total else f"{stretch.done:,}"
    return f"{count} {stretch.unit}".rstrip()


def _figures(figures: dict[str, float]) -> str:
    """Figures as `loss 0.123  rows/s 12,345`.

    >>> _figures({"loss": 0.12345, "rate": 12345.6})
    'loss 0.1235  rate 12,346'
    """
    return "  ".join(
        f"{name} {value:,.0f}" if abs(value) >= 100 else f"{name} {value:.4g}" for name, value in figures.items()
    )
