"""Impressions in order of time grouped into requests: by id, by user and pause, or each by itself.

user  time   device          gap = 30m
7     10:00  phone   -+
7     10:12  phone   -+  request 7-0
9     10:15  phone   --  request 9-0
7     10:20  tablet  --  request 7-1   one context per request: a change of context begins a new one
7     11:30  tablet  --  request 7-2   a pause longer than the gap

Requests come in the order of their first impressions, and so do the impressions of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numba
import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.hashing import CODE, LINE
from features.logs.timestamps import TIME
from features.sweep.key_rows import KeyRows, resized
from features.transforms.sessions import context_columns
from rec.errors import DataError
from rec.spec import Spec

_US = timedelta(microseconds=1)

_kernel = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Grouping:
    """Requests [B] of impressions: the places `order` [N] of their impressions, which begin at `offsets` [B + 1].

    `mark` [B] uint64 is the hash of a request's id, where it has one; otherwise of its user, and `number` [B] says
    which of his requests it is.
    """

    order: np.ndarray
    offsets: np.ndarray
    mark: np.ndarray
    number: np.ndarray

    def __len__(self) -> int:
        """B."""
        return len(self.mark)

    def first(self) -> np.ndarray:
        """The place of the first impression of every request [B]."""
        return self.order[self.offsets[:-1]]

    def head(self, count: int) -> Grouping:
        """The first so many requests."""
        return Grouping(
            self.order[: self.offsets[count]], self.offsets[: count + 1], self.mark[:count], self.number[:count]
        )


class Numbering:
    """How many requests each user has had, where requests are numbered among their user's own."""

    def __init__(self) -> None:
        """Nobody had any."""
        self._table, self._count = KeyRows(), np.zeros(1, np.int64)

    def before(self, user: np.ndarray) -> np.ndarray:
        """How many requests the users of some requests [B] (their hashes) have had before all of these."""
        return self._count[self._table.find(user)]

    def add(self, user: np.ndarray) -> None:
        """These requests are over."""
        rows = self._table.add(user)
        self._count = resized(self._count, len(self._table))
        np.add.at(self._count, rows, 1)


def group(spec: Spec, rows: pl.DataFrame, time: np.ndarray) -> Grouping:
    """The requests of impressions [N] in order of time, with their CODE, or LINE where the logs name nobody.

    Raises DataError for a request id that two users share.
    """
    if CODE not in rows.columns:
        every = np.arange(len(rows))
        return Grouping(every, np.append(every, len(rows)), every.astype(np.uint64), np.zeros(len(rows), np.int64))
    code = rows[CODE].to_numpy()
    if spec.keys.request is not None:
        name = hashing.hashed(rows[spec.keys.request])
        grouping = Grouping(*_gathered(name))
        _one_user(str(spec.keys.request), rows, code, grouping)
        return grouping
    columns = context_columns(spec, rows)
    context = [column_part for column in columns for column_part in (rows[column].is_null(), rows[column])]
    same = hashing.together(context)[0] if context else np.zeros(len(rows), np.uint64)
    gap = spec.requests.gap // _US if TIME in rows.columns else 1 << 62
    return Grouping(*_paused(code, same, time, gap))


def ids(spec: Spec, rows: pl.DataFrame, grouping: Grouping, numbers: Numbering) -> pa.Array:
    """The ids of requests, as text [B]; an anonymous one without an id is called by its hash."""
    first = grouping.first()
    if CODE not in rows.columns:
        names = rows[LINE].gather(first)
    elif spec.keys.request is not None:
        names = rows[spec.keys.request].gather(first)
    else:
        user = rows[str(spec.keys.user)].gather(first)
        number = pl.Series(numbers.before(grouping.mark) + grouping.number).cast(pl.String)
        nobody = pl.Series(grouping.mark).cast(pl.String)
        names = user.cast(pl.String).fill_null("") + "-" + number.zip_with(user.is_not_null(), nobody)
    return names.cast(pl.String).to_arrow().cast(pa.string())


def _one_user(request: str, rows: pl.DataFrame, code: np.ndarray, grouping: Grouping) -> None:
    of = code[grouping.order]
    wrong = of != np.repeat(of[grouping.offsets[:-1]], np.diff(grouping.offsets))
    if wrong.any():
        shared = np.unique(np.searchsorted(grouping.offsets, np.flatnonzero(wrong), side="right") - 1)
        example = rows[request].gather(grouping.first()[shared]).sort()[0]
        raise DataError(f"keys.request: {len(shared)} request ids have several users, such as {example!r}")


def _gathered(name: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows of every name [n] uint64, names in the order of their first rows."""
    request = KeyRows(len(name) // 4).add(name)
    return _by_request(request, name)


@_kernel
def _by_request(  # pragma: no cover  # compiled
    request: np.ndarray, name: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Requests are numbered from 1, in the order of their first rows."""
    count = 0
    for r in request:
        count = max(count, r)
    offsets, mark = np.zeros(count + 1, np.int64), np.empty(count, np.uint64)
    for i in range(len(request)):
        offsets[request[i]] += 1
        mark[request[i] - 1] = name[i]
    for r in range(count):
        offsets[r + 1] += offsets[r]
    at, order = offsets[:-1].copy(), np.empty(len(request), np.int64)
    for i in range(len(request)):
        r = request[i] - 1
        order[at[r]] = i
        at[r] += 1
    return order, offsets, mark, np.zeros(count, np.int64)


def _paused(
    code: np.ndarray, context: np.ndarray, time: np.ndarray, gap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    table = KeyRows(len(code) // 4)
    user = table.add(code)
    request, number = _pauses(user, len(table), context, time, gap)
    order, offsets, mark, _ = _by_request(request, code)
    return order, offsets, mark, number


@_kernel
def _pauses(  # pragma: no cover  # compiled
    user: np.ndarray, users: int, context: np.ndarray, time: np.ndarray, gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """The request of every row, from 1 on, and which of its user's each request is."""
    open_request, last, had = np.zeros(users, np.int32), np.zeros(users, np.int64), np.zeros(users, np.int64)
    same = np.zeros(users, np.uint64)
    request, number, count = np.empty(len(user), np.int32), np.empty(len(user), np.int64), 0
    for i in range(len(user)):
        u = user[i]
        if open_request[u] == 0 or time[i] - last[u] > gap or context[i] != same[u]:
            number[count] = had[u]
            had[u] += 1
            count += 1
            open_request[u], same[u] = count, context[i]
        last[u], request[i] = time[i], open_request[u]
    return request, number[:count].copy()


class Pauses:
    """The longest pause between two impressions of one request, as a log goes by."""

    def __init__(self) -> None:
        """No impression yet."""
        self._table, self._last = KeyRows(), np.zeros(1, np.int64)
        self.longest = 0

    def add(self, name: np.ndarray, time: np.ndarray) -> None:
        """Impressions [n] in order of time, by the hashes of their requests."""
        known = len(self._table)
        row = self._table.add(name)
        self._last = resized(self._last, len(self._table))
        self.longest = max(self.longest, _longest(row, time, self._last, known))


@_kernel
def _longest(  # pragma: no cover  # compiled
    row: np.ndarray, time: np.ndarray, last: np.ndarray, known: int
) -> int:
    """Rows of requests from `known` on come one after the other, each for the first time."""
    longest = 0
    for i in range(len(row)):
        if row[i] < known:
            longest = max(longest, time[i] - last[row[i]])
        else:
            known += 1
        last[row[i]] = time[i]
    return longest
