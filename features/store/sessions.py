"""Requests of a stream of impressions: `features.sweep.requests` row by row.

A request is identified by its id, or is the user's impressions with no gap longer than `[requests] gap` and one
context. A late impression joins one of the newest requests of its user if its id or timestamp matches, else it is a
request of its own. A late request joins the user's newest session if that begins no later than a gap after it, and is
otherwise ignored (features/sweep/open_sessions.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.logs.timestamps import TIME
from features.transforms.joins import SideTable
from features.transforms.sessions import context_columns
from rec.spec import Number, Spec

Integers = np.ndarray | Sequence[int]
_US = timedelta(microseconds=1)
_NEWEST = 8  # requests of a user that may still go on, where they have ids


class StreamRequests:
    """For every impression, the time its request began, and whether it begins one."""

    def __init__(self, spec: Spec) -> None:
        """No users yet."""
        self._spec = spec
        self._by_id = spec.keys.request is not None
        self._gap = spec.requests.gap // _US
        self._kept = newest(spec)
        # of each user the newest requests: their ids or contexts as hashes, when they began, and when they went on
        self._newest: dict[int, dict[int, tuple[int, int]]] = {}

    def begun(self, rows: pl.DataFrame, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """When each row's request began, in microseconds [n], and whether the row is its first [n] bool.

        `rows` are ordered by time; `user` [n] uint64 is the hash of the user (anonymous: of the request).
        """
        mark = marks(self._spec, rows)
        time = rows[TIME].dt.timestamp("us").to_list()
        begin, first = np.empty(len(rows), np.int64), np.zeros(len(rows), bool)
        for place, (who, what, when) in enumerate(zip(user.tolist(), mark.tolist(), time, strict=True)):
            own = self._newest.setdefault(who, {})
            began, last = own.get(what, (when, None))
            if last is None or (not self._by_id and when - last > self._gap):
                began, last, first[place] = when, when, True
                own.pop(what, None)
                while len(own) >= self._kept:
                    del own[next(iter(own))]
            own[what] = began, max(last, when)
            begin[place] = began
        return begin, first

    def table(self) -> pa.Table:
        """The newest requests of every user, to be saved."""
        rows = [(who, what, *moments) for who, own in self._newest.items() for what, moments in own.items()]
        return newest_table(*_columns(rows))

    def fill(self, table: pa.Table) -> None:
        """What `table` gave, back."""
        for who, what, *moments in zip(*(column.to_pylist() for column in table.columns), strict=True):
            self._newest.setdefault(who, {})[what] = tuple(moments)


def sits(spec: Spec) -> bool:
    """Whether any feature is of the session so far."""
    return any(isinstance(f, Number) and f.make.startswith("session_") for f in spec.context.values())


def follows(spec: Spec, sides: Mapping[str, SideTable]) -> bool:
    """Whether the start of an impression's request is needed: for sessions, or for rows valid from a timestamp."""
    return sits(spec) or any(side.changing for side in sides.values())


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


def newest_table(user: Integers, mark: Integers, begin: Integers, last: Integers) -> pa.Table:
    """Requests, each user's oldest first: whose, their mark, when they began, and their last impression [n]."""
    kinds = {"key": pa.uint64(), "mark": pa.uint64(), "begin": pa.int64(), "last": pa.int64()}
    return _table((user, mark, begin, last), kinds)


def _table(columns: Sequence[Integers], kinds: Mapping[str, pa.DataType]) -> pa.Table:
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
    return pa.table(arrays, names=list(kinds))


def _columns(rows: list[tuple[int, int, int, int]]) -> list[list[int]]:
    return [[row[place] for row in rows] for place in range(4)]
