"""Progress of long work, independent of terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work; pipelines/cli/progress_bars.py draws it."""

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins, of `total` units (rows, requests, parts) if that is known."""
        ...

    def advance(self, units: int, **figures: float) -> None:
        """`units` more are done; figures are shown beside the bar."""
        ...

    def say(self, line: str) -> None:
        """A line for the log."""
        ...


class Silent:
    """Progress that is discarded."""

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Ignored."""

    def advance(self, units: int, **figures: float) -> None:
        """Ignored."""

    def say(self, line: str) -> None:
        """Ignored."""
