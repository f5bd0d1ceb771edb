"""Names of our own columns beside those of the logs: no column that is read may be called so."""

from __future__ import annotations

from collections.abc import Iterable

RESERVED = frozenset(
    f"@{name}"
    for name in (
        "time", "code", "line", "since", "bad", "extra", "request", "nth", "at", "impression", "event", "place", "has",
        "unlabelled", "seen", "share",
    )
)  # fmt: skip


def reserved(columns: Iterable[str]) -> str | None:
    """The first of some columns that is called as one of ours, if any.

    >>> reserved(["@timestamp", "@time"])
    '@time'
    """
    return next((column for column in columns if column in RESERVED or column.startswith("@new.")), None)
