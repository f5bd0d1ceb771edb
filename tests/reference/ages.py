"""The ages of stored features, one candidate and one feature after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_high


def moment(features: Mapping[str, str], row: Mapping[str, int] | None, sent: set[str], lost: set[str]) -> int | None:
    """The oldest moment of what a row of the store supplies, None for nothing.

    `features` says of which moment each is, "@as_of" or "@seen", and `row` when these were.
    """
    if row is None:
        return None
    moments = [row[of] for name, of in features.items() if name not in sent and name not in lost]
    return min(moments, default=None)


def ages(time: int, moments: Sequence[int | None], limit: int) -> tuple[float | None, float | None, int]:
    """The median and the oldest age in seconds, and how many are past a limit in microseconds."""
    known = [time - moment for moment in moments if moment is not None]
    if not known:
        return None, None, 0
    return median_high(known) / 1e6, max(known) / 1e6, sum(age > limit for age in known)
