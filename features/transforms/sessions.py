"""Impressions grouped into requests, by id, by user and time gap, or one by one; and requests into sessions.

user  time   device          gap = 30m
7     10:00  phone   -+
7     10:12  phone   -+  request 7-0
7     10:20  tablet  --  request 7-1   one context per request: a change of context begins a new one
7     11:30  tablet  --  request 7-2   a pause longer than the gap
9     10:05  phone   --  request 9-0

Rows are clustered by the user's hash, then by the start of the request. Without a user and a request id they keep the
order of the logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.hashing import CODE, LINE
from features.logs.timestamps import TIME
from features.transforms.joins import column_of
from rec.errors import DataError
from rec.request import spans
from rec.spec import Spec

_US = timedelta(microseconds=1)


@dataclass(frozen=True)
class Sessions:
    """Impressions [N] clustered by user, then time, and where each of the B requests begins.

    `time` is when a request's first impression was shown, in microseconds since 1970; 0 where the logs have no clock.
    `place` is each row's index in the input [N], `code` the hash of each request's user [B].
    """

    rows: pl.DataFrame
    offsets: np.ndarray
    time: np.ndarray
    ids: pa.Array
    place: np.ndarray
    code: np.ndarray

    def __len__(self) -> int:
        """Number of requests B."""
        return len(self.time)

    def owner(self) -> np.ndarray:
        """The request of every impression [N]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def coded(spec: Spec, rows: pl.DataFrame, place: np.ndarray) -> np.ndarray | None:
    """The hash of each row's user [n] uint64; for anonymous rows, of its request.

    None if the logs have neither. `place` [n] int64 distinguishes rows without either.
    """
    user, request = spec.keys.user, spec.keys.request
    if user is None and request is None:
        return None
    code = hashing.hashed(rows[user or str(request)])
    if user is not None and rows[user].null_count():
        nobody = rows[user].is_null().to_numpy()
        name = rows[request] if request in rows.columns else pl.Series(place)
        # as a pair, so that it is not the hash of a user who is called by that number
        instead, _ = hashing.together([name, pl.Series(np.zeros(len(rows), np.int64))])
        code = np.where(nobody, instead, code)
    return code


def group(spec: Spec, rows: pl.DataFrame) -> Sessions:
    """The requests of some users: all rows of each, with CODE (if `coded` returned any) and TIME.

    Raises DataError for a request id that two users share.
    """
    time = rows[TIME].dt.timestamp("us").to_numpy() if TIME in rows.columns else np.zeros(len(rows), np.int64)
    if CODE not in rows.columns:
        ids = pl.Series(np.arange(len(rows))) if LINE not in rows.columns else rows[LINE]
        every = np.arange(len(rows))
        return _sessions(rows, every, every, time, ids)
    code = rows[CODE].to_numpy()
    if spec.keys.request is not None:
        return _by_id(spec.keys.request, rows, code, time)
    return _by_pause(spec, rows, code, time)


def _by_id(request: str, rows: pl.DataFrame, code: np.ndarray, time: np.ndarray) -> Sessions:
    named = hashing.hashed(rows[request])
    order = _as_shown(code, named, time)
    sorted_code, sorted_name = code[order], named[order]
    starts = _starts(sorted_code, sorted_name)
    _one_user(request, rows, order[starts], sorted_name[starts])
    began = time[order][starts]
    by_time = hashing.order(sorted_code[starts], began, sorted_name[starts])
    length = np.diff(np.append(starts, len(order)))[by_time]
    order = order[spans(starts[by_time], length)]
    starts = np.cumsum(length) - length
    return _sessions(rows[order], order, starts, time, rows[request].gather(order[starts]))


def _as_shown(code: np.ndarray, named: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Row order by user, request and time; a user's requests are in any order [n] int64."""
    order = hashing.order(code)  # logs mostly have a request's rows one below the other, in time
    name, at = named[order], time[order]
    starts = _starts(code[order], name)
    inside = np.ones(len(order), bool)
    inside[starts] = False
    whole = len(np.unique(name[starts])) == len(starts)
    return order if whole and np.all(np.diff(at)[inside[1:]] >= 0) else hashing.order(code, named, time)


def _starts(*by: np.ndarray) -> np.ndarray:
    """Where any of several arrays changes value; True at the first row."""
    new = np.ones(len(by[0]), bool)
    new[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in by])
    return np.flatnonzero(new)


def _one_user(request: str, rows: pl.DataFrame, first: np.ndarray, name: np.ndarray) -> None:
    ordered = np.sort(name)
    shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(shared):
        example = rows[request][first[np.isin(name, shared)]].sort()[0]
        raise DataError(f"keys.request: {len(shared)} request ids have several users, such as {example!r}")


def _by_pause(spec: Spec, rows: pl.DataFrame, code: np.ndarray, time: np.ndarray) -> Sessions:
    order = hashing.order(code, time)
    ordered, at = rows[order], time[order]
    user, belongs = ordered[str(spec.keys.user)], code[order]
    new_user = np.ones(len(order), bool)
    new_user[1:] = belongs[1:] != belongs[:-1]
    new = new_user.copy()
    if TIME in rows.columns:
        new[1:] |= np.diff(at) > spec.requests.gap // _US
    for column in context_columns(spec, ordered):
        new |= ordered[column].ne_missing(ordered[column].shift(1)).to_numpy()
    starts = np.flatnonzero(new)
    # a request is numbered among its user's own; an anonymous one has one request, identified by its hash
    index = np.arange(len(starts))
    number = pl.Series(index - np.maximum.accumulate(np.where(new_user[starts], index, 0))).cast(pl.String)
    whose, nobody = user[starts], pl.Series(belongs[starts]).cast(pl.String)
    ids = whose.cast(pl.String).fill_null("") + "-" + number.zip_with(whose.is_not_null(), nobody)
    return _sessions(ordered, order, starts, time, ids)


def context_columns(spec: Spec, rows: pl.DataFrame) -> list[str]:
    """Impression columns of the context, without lists."""
    read = [
        column_of(f, name, spec)
        for name, f in spec.context.items()
        if getattr(f, "make", "column") in ("column", "age", "tokens")
    ]
    skipped = {spec.keys.user, spec.keys.time}
    return [c for c in dict.fromkeys(read) if c in rows.columns and c not in skipped and not rows[c].dtype.is_nested()]


def so_far(spec: Spec, grouped: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """For every request: earlier requests of its session [B], and microseconds since the session's start [B]."""
    time, code = grouped.time, grouped.code
    if not len(time):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if spec.keys.session is not None:
        native = grouped.rows[spec.keys.session][grouped.offsets[:-1]]
        session = hashing.hashed(native)
        session = np.where(native.is_null().to_numpy(), np.arange(len(time)).astype(np.uint64), session)
        order = hashing.order(code, session, time)
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(code[order].view(np.int64)) != 0) | (np.diff(session[order].view(np.int64)) != 0)
    else:
        order = np.arange(len(time))
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(code.view(np.int64)) != 0) | (np.diff(time) > spec.sessions.gap // _US)
    at = time[order]
    place = np.arange(len(order))
    first = np.maximum.accumulate(np.where(new, place, 0))
    later = new.copy()
    later[1:] |= at[1:] != at[:-1]  # requests of one timestamp do not see each other
    earlier, seconds = np.empty_like(time), np.empty_like(time)
    earlier[order] = np.maximum.accumulate(np.where(later, place, 0)) - first
    seconds[order] = at - at[first]
    return earlier, seconds


def _sessions(
    ordered: pl.DataFrame, order: np.ndarray, starts: np.ndarray, time: np.ndarray, ids_B: pl.Series
) -> Sessions:
    code = ordered[CODE].to_numpy()[starts] if CODE in ordered.columns else np.arange(len(starts)).astype(np.uint64)
    ids = ids_B.cast(pl.String).to_arrow().cast(pa.string())
    return Sessions(ordered, np.append(starts, len(order)), time[order[starts]], ids, order, code)
