"""Impressions to requests: by request id, else by user and pause, else one impression is one request.

user  time   device          gap = 30m
7     10:00  phone   -+
7     10:12  phone   -+  request 7-0
7     10:20  tablet  --  request 7-1   one context per request: where the context changes, a new one begins
7     11:30  tablet  --  request 7-2   a pause longer than the gap
9     10:05  phone   --  request 9-0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features.joins import column_of
from features.moments import TIME
from rec.errors import DataError
from rec.spec import Spec


@dataclass(frozen=True)
class Sessions:
    """Impressions [N] clustered by user, then time, and where each of the B requests begins.

    `time` is when a request's first impression was shown, in microseconds since 1970; 0 where the logs have no clock.
    """

    rows: pl.DataFrame
    offsets: np.ndarray
    time: np.ndarray
    ids: pa.Array

    def __len__(self) -> int:
        """Number of requests B."""
        return len(self.time)

    def owner(self) -> np.ndarray:
        """The request of every impression [N]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def first(self) -> pl.DataFrame:
        """The first impression of every request: the columns its context is read from."""
        return self.rows[self.offsets[:-1]]


def group(spec: Spec, rows: pl.DataFrame) -> Sessions:
    """The requests of a log.

    Raises DataError for an impression without a moment or request id, and for a request id that two users share.
    """
    if TIME in rows.columns:
        _whole(rows, TIME, f"keys.time: column {spec.keys.time!r}")
    if spec.keys.request is not None:
        return _by_id(spec, rows, spec.keys.request)
    if spec.keys.user is not None and TIME in rows.columns:
        return _by_pause(spec, rows, spec.keys.user)
    ordered = rows.with_row_index("@row").sort(_clustered(spec, rows, ["@row"]))
    return _sessions(ordered.drop("@row"), np.ones(len(rows), bool), ordered["@row"].cast(pl.String))


def _by_id(spec: Spec, rows: pl.DataFrame, request: str) -> Sessions:
    _whole(rows, request, f"keys.request: column {request!r}")
    user = spec.keys.user
    if user is not None:
        shared = rows.group_by(request).agg(pl.col(user).n_unique().alias("users")).filter(pl.col("users") > 1)
        if not shared.is_empty():
            raise DataError(
                f"keys.request: {len(shared)} request ids have several users, such as {shared[request].sort()[0]!r}"
            )
    began = [pl.col(TIME).min().over(request).alias("@began")] if TIME in rows.columns else []
    ordered = rows.with_columns(began).with_row_index("@row")
    by = [*([user] if user else []), *(["@began"] if began else []), request, *([TIME] if began else []), "@row"]
    ordered = ordered.sort(by, nulls_last=False)
    new = (ordered[request] != ordered[request].shift(1)).fill_null(True).to_numpy()
    return _sessions(ordered.drop("@row", "@began", strict=False), new, ordered[request].cast(pl.String))


def _by_pause(spec: Spec, rows: pl.DataFrame, user: str) -> Sessions:
    ordered = rows.with_row_index("@row").sort([user, TIME, "@row"]).drop("@row")
    of_user, time = ordered[user], ordered[TIME].dt.timestamp("us").to_numpy()
    new_user = (of_user.ne_missing(of_user.shift(1)) | of_user.is_null()).to_numpy().copy()
    new_user[:1] = True
    new = new_user.copy()
    new[1:] |= np.diff(time) > spec.requests.gap // timedelta(microseconds=1)
    for column in context_columns(spec, ordered):
        new |= ordered[column].ne_missing(ordered[column].shift(1)).to_numpy()
    # a request is numbered among its user's own; somebody unknown has one request, told apart by its place
    index = np.cumsum(new) - 1
    own = index - np.maximum.accumulate(np.where(new_user, index, 0))
    number = np.where(of_user.is_null().to_numpy(), np.arange(len(time)), own)
    ids = of_user.cast(pl.String).fill_null("") + "-" + pl.Series(number).cast(pl.String)
    return _sessions(ordered, new, ids)


def context_columns(spec: Spec, rows: pl.DataFrame) -> list[str]:
    """Columns of impressions that the context is made of, lists aside."""
    read = [
        column_of(f, name, spec)
        for name, f in spec.context.items()
        if getattr(f, "make", "column") in ("column", "age")
    ]
    skipped = {spec.keys.user, spec.keys.time}
    return [c for c in dict.fromkeys(read) if c in rows.columns and c not in skipped and not rows[c].dtype.is_nested()]


def _clustered(spec: Spec, rows: pl.DataFrame, last: Sequence[str]) -> list[str]:
    return [*([spec.keys.user] if spec.keys.user else []), *([TIME] if TIME in rows.columns else []), *last]


def _sessions(rows: pl.DataFrame, new_N: np.ndarray, ids_N: pl.Series) -> Sessions:
    starts = np.flatnonzero(new_N)
    time = rows[TIME].dt.timestamp("us").to_numpy()[starts] if TIME in rows.columns else np.zeros(len(starts), np.int64)
    ids = ids_N.gather(starts).to_arrow().cast(pa.string())
    return Sessions(rows, np.append(starts, len(rows)), time, ids)


def _whole(rows: pl.DataFrame, column: str, where: str) -> None:
    missing = rows[column].null_count()
    if missing:
        raise DataError(f"{where}: {missing} of {len(rows)} impressions have none")
