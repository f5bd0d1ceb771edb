"""Slow, obvious twins of features/: loops over rows of (user, item, second, clicked)."""

from __future__ import annotations

import math

import numpy as np

Row = tuple  # (user, item, second, clicked)


def count(rows: list[Row], place: int, value: object, moment: int) -> float:
    """Rows before `moment` whose column `place` is `value`; NaN for no value."""
    return math.nan if value is None else float(sum(r[place] == value and r[2] < moment for r in rows))


def events(rows: list[Row], place: int, value: object, moment: int, *, window: int) -> float:
    """Clicks known before `moment` whose column `place` is `value`; NaN for no value."""
    if value is None:
        return math.nan
    return float(sum(r[place] == value and r[3] == 1 and r[2] + window < moment for r in rows))


def rate(rows: list[Row], place: int, value: object, moment: int, *, window: int, prior: float) -> float:
    """Clicks per observed impression known before `moment`, smoothed by everybody's rate at that moment."""
    if value is None:
        return math.nan
    seen = [r for r in rows if r[3] is not None and r[2] + window < moment]
    base = (sum(r[3] for r in seen) + 1) / (len(seen) + 2)
    own = [r for r in seen if r[place] == value]
    return (sum(r[3] for r in own) + prior * base) / (len(own) + prior)


def history(rows: list[Row], user: object, moment: int, *, window: int, last: int, clicked: bool) -> list:
    """The last items a user was shown (or clicked) before `moment`, oldest first, ties as in the log."""
    if user is None:
        return []
    own = [r for r in rows if r[0] == user and r[1] is not None and (r[3] == 1 or not clicked)]
    own = sorted((r for r in own if r[2] + window < moment), key=lambda r: r[2])
    return [r[1] for r in own][-last:]


def requests(rows: list[Row], *, gap: int) -> list[list[Row]]:
    """Rows grouped by user where no pause is longer than `gap`, users in order, nobody first."""
    ordered = sorted(rows, key=lambda r: (-math.inf if r[0] is None else r[0], r[2]))
    made: list[list[Row]] = []
    for row in ordered:
        joins = made and row[0] is not None and made[-1][-1][0] == row[0] and row[2] - made[-1][-1][2] <= gap
        if joins:
            made[-1].append(row)
        else:
            made.append([row])
    return made


def same(a: np.ndarray, b: list[float]) -> bool:
    """Equal to float32, NaN where NaN."""
    return np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-6, equal_nan=True)
