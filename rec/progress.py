"""Progress of long work, independent of terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What long work reports to; pipelines/cli/progress_bars.py draws it."""

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """A new stretch of work begins, of `total` units where that is known: rows, requests, parts."""
        ...

    def advance(self, units: int, **figures: float) -> None:
        """So many units are done; figures are shown beside the bar."""
        ...

    def say(self, line: str) -> None:
        """A line worth keeping."""
        ...


class Silent:
    """Says nothing."""

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Begin quietly."""

    def advance(self, units: int, **figures: float) -> None:
        """Move on quietly."""

    def say(self, line: str) -> None:
        """Keep quiet."""
