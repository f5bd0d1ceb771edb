"""Which row of another run's embedding table each row of this one's starts from.

    vocabulary    by id: the row that the same id has there          hash, cross    row by row, of equally many
    bucket        by number: the row that its lower edge has there   hour, weekday  row by row

Row 0, missing or unknown, starts from row 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec.data.encoders import Buckets, Vocabulary
from rec.data.preprocessor import Preprocessor
from rec.spec import Ids, Number, Spec
from rec.spec.features import CLOCKS

_BLOCK = 1 << 20  # rows that are counted at a time


@dataclass(frozen=True)
class Fitted:
    """A spec, and what was fitted on its session tables."""

    spec: Spec
    learnt: Preprocessor


@dataclass(frozen=True)
class Overlap:
    """How many rows of a table are copied from another, how many are new, and how many of the other are gone."""

    copied: int
    new: int
    gone: int


def difference(table: str, here: Fitted, there: Fitted) -> str:
    """Why rows of a table mean nothing in that of another run; empty where they do.

    >>> difference("item_id", here, there)  # doctest: +SKIP
    'hash of 100 rows, vocabulary of ints there'
    """
    if table not in there.spec.tables():
        return "no such table there"
    mine, theirs = _kind(table, here), _kind(table, there)
    return "" if mine == theirs else f"{mine}, {theirs} there"


def by(table: str, here: Fitted) -> str:
    """What rows of two tables are matched by: their ids, their numbers, or their places."""
    encoder = here.learnt.encoders.get(table)
    return {Vocabulary: "id", Buckets: "number"}.get(type(encoder), "row")


def rows(table: str, here: Fitted, there: Fitted, start: int, stop: int) -> np.ndarray:
    """For the rows from `start` to `stop`, their rows in a table without `difference` [stop - start]; -1 where new."""
    mine, theirs = here.learnt.encoders.get(table), there.learnt.encoders.get(table)
    if isinstance(mine, Vocabulary) and isinstance(theirs, Vocabulary):
        first = max(start, 1)
        encoded = theirs(mine.values.slice(first - 1, max(0, stop - first)))
        encoded = np.where(encoded == 0, -1, encoded)
    elif isinstance(mine, Buckets) and isinstance(theirs, Buckets):
        # rows 0 and 1, missing and below all edges, are the same everywhere
        first = max(start, 2)
        edges = mine.edges[first - 2 : max(0, stop - 2)]
        encoded = 1 + np.searchsorted(theirs.edges, edges, side="right")
    else:
        return np.arange(start, stop)
    return np.concatenate([np.arange(start, min(first, stop)), encoded]).astype(np.int64)


def overlap(table: str, here: Fitted, there: Fitted, count: tuple[int, int]) -> Overlap:
    """How much two tables have in common; `count` is how many rows they have, here and there. Row 0 counts too."""
    known, used = 0, np.zeros(count[1], bool)
    for start in range(0, count[0], _BLOCK):
        places = rows(table, here, there, start, min(count[0], start + _BLOCK))
        known += int((places >= 0).sum())
        used[places[places >= 0]] = True
    return Overlap(known, count[0] - known, int((~used).sum()))


def _kind(table: str, fitted: Fitted) -> str:
    """What decides which id has which row, in words."""
    feature = fitted.spec.tables()[table]
    if isinstance(feature, Number):
        return "buckets"
    if feature.make in CLOCKS:
        return feature.make
    if not isinstance(feature, Ids) and feature.make == "cross":
        return f"cross of {', '.join(feature.of)} in {feature.rows:,} rows"
    if feature.encode == "hash":
        return f"hash of {feature.values}s in {feature.rows:,} rows"
    return f"vocabulary of {feature.values}s"
