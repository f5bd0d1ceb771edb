"""Requests of a stream of impressions: `features.sweep.requests` row by row.

A request is identified by its id, or is the user's impressions with no gap longer than `[requests] gap` and one
context. A late impression joins one of the newest requests of its user if its id or timestamp matches, else it is a
request of its own. A late request joins the user's newest session if that begins no later than a gap after it, and is
otherwise ignored (features/sweep/open_sessions.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.logs.timestamps import TIME
from features.transforms.joins import SideTable
from features.transforms.sessions import context_columns
from rec.spec import Number, Spec
from rec.spec.features import EXPECTED

Integers = np.ndarray | Sequence[int]
# whose a request is, its mark, when it began and went on, its number, and how many impressions it has
REQUESTS = {
    "key": pa.uint64(), "mark": pa.uint64(), "begin": pa.int64(), "last": pa.int64(), "number": pa.int64(),
    "shown": pa.int64(),
}  # fmt: skip
_US = timedelta(microseconds=1)
_NEWEST = 8  # requests of a user that may still go on, where they have ids


@dataclass(frozen=True)
class Begun:
    """Of every row [n]: when its request began in microseconds, whether it is its first, a number for the request.

    `shown` is how many of the request's impressions were fed up to and including it.
    """

    begin: np.ndarray
    first: np.ndarray
    request: np.ndarray
    shown: np.ndarray


class StreamRequests:
    """The request of every impression, and what is known of it."""

    def __init__(self, spec: Spec) -> None:
        """No users yet."""
        self._spec = spec
        self._by_id = spec.keys.request is not None
        self._gap = spec.requests.gap // _US
        self._kept = newest(spec)
        # of each user the newest requests: their ids or contexts as hashes; when they began, and when they went on,
        # their numbers, and how many impressions they have
        self._newest: dict[int, dict[int, tuple[int, int, int, int]]] = {}
        self._next = 0

    def begun(self, rows: pl.DataFrame, user: np.ndarray) -> Begun:
        """The requests of rows [n].

        `rows` are ordered by time; `user` [n] uint64 is the hash of the user (anonymous: of the request).
        """
        mark = marks(self._spec, rows)
        time = rows[TIME].dt.timestamp("us").to_list()
        begin, first = np.empty(len(rows), np.int64), np.zeros(len(rows), bool)
        request, shown = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for place, (who, what, when) in enumerate(zip(user.tolist(), mark.tolist(), time, strict=True)):
            own = self._newest.setdefault(who, {})
            began, last, number, count = own.get(what, (when, None, 0, 0))
            if last is None or (not self._by_id and when - last > self._gap):
                began, last, first[place] = when, when, True
                number, count = self._next, 0
                self._next += 1
                own.pop(what, None)
                while len(own) >= self._kept:
                    del own[next(iter(own))]
            own[what] = began, max(last, when), number, count + 1
            begin[place], request[place], shown[place] = began, number, count + 1
        return Begun(begin, first, request, shown)

    def alone(self, time: np.ndarray) -> Begun:
        """Rows at these timestamps [n], each a request of its own."""
        every, first = np.ones(len(time), np.int64), self._next
        self._next += len(time)
        return Begun(time, every.astype(bool), np.arange(first, self._next), every)

    def number_from(self, number: int) -> None:
        """Requests to come have numbers from this one on, or later ones."""
        self._next = max(self._next, number)

    def table(self) -> pa.Table:
        """The newest requests of every user, to be saved."""
        rows = [(who, what, *moments) for who, own in self._newest.items() for what, moments in own.items()]
        return newest_table([[row[place] for row in rows] for place in range(len(REQUESTS))])

    def fill(self, table: pa.Table) -> None:
        """What `table` gave, back."""
        for who, what, *moments in zip(*(column.to_pylist() for column in table.columns), strict=True):
            begin, last, number, shown = (*moments, 0, 0)[: len(REQUESTS) - 2]  # older states have no numbers
            self._newest.setdefault(who, {})[what] = begin, last, number, shown
            self.number_from(number + 1)


def sits(spec: Spec) -> bool:
    """Whether any feature is of the session so far."""
    return any(isinstance(f, Number) and f.make.startswith("session_") for f in spec.context.values())


def follows(spec: Spec, sides: Mapping[str, SideTable]) -> bool:
    """Whether an impression's request is needed: for sessions, rows valid from a timestamp, or expected clicks."""
    return sits(spec) or expects(spec) or any(side.changing for side in sides.values())


def expects(spec: Spec) -> bool:
    """Whether any feature is of the expected clicks of a key."""
    return any(isinstance(f, Number) and f.make in EXPECTED for _, side in spec.sides() for f in side.values())


def session_codes(spec: Spec, rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The hash that each row's session is known by [n] uint64, and whether there is any [n] bool."""
    names = [str(spec.keys.user)] + ([] if spec.keys.session is None else [spec.keys.session])
    code, missing = hashing.together([rows[name] for name in names])
    return code, ~missing


def newest(spec: Spec) -> int:
    """How many requests of a user may still go on: where they have ids, the newest few."""
    return _NEWEST if spec.keys.request is not None else 1


def marks(spec: Spec, rows: pl.DataFrame) -> np.ndarray:
    """What tells the requests of a user apart, as a hash [n] uint64: their id, or their context (nulls are alike)."""
    if spec.keys.request is not None:
        return hashing.hashed(rows[spec.keys.request])
    columns = context_columns(spec, rows)
    if not columns:
        return np.zeros(len(rows), np.uint64)
    return hashing.together([part for name in columns for part in (rows[name].is_null(), rows[name])])[0]


def newest_table(columns: Sequence[Integers]) -> pa.Table:
    """Requests, each user's oldest first, in the columns of REQUESTS [n]."""
    arrays = [pa.array(column, kind) for column, kind in zip(columns, REQUESTS.values(), strict=True)]
    return pa.table(arrays, names=list(REQUESTS))
