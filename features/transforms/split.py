"""Train, validation and test split of requests: by time, or by a column of the logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from features.transforms.sessions import Sessions
from rec.data.splits import SPLITS
from rec.errors import DataError, nearest
from rec.spec import Spec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def assign(spec: Spec, sessions: Sessions, rows: pl.DataFrame) -> np.ndarray:
    """The split of every request, as an index into SPLITS [B] int8; `rows` are its joined impressions [N].

    Raises DataError when the column has another value, or several within one request.
    """
    split = spec.split
    if split.column is not None:
        placed = _by_column(rows[split.column], sessions)
    else:
        borders = [border for border in (split.validation, split.test) if border is not None]
        begins = [(border - EPOCH) // timedelta(microseconds=1) for border in borders]
        placed = np.searchsorted(np.array(begins), sessions.time, side="right").astype(np.int8)
    return placed


def refuse_none(spec: Spec, train: int, first: int | None, last: int | None) -> None:
    """DataError if the training split is empty; `first` and `last` are the log's time range (microseconds)."""
    if train == 0:
        span = f"column {spec.split.column!r}" if spec.split.column is not None else _range(first or 0, last or 0)
        raise DataError(f"split: no request is in train; {span}")


def _by_column(column: pl.Series, sessions: Sessions) -> np.ndarray:
    words = column.cast(pl.String)
    place_of = {word: place for place, word in enumerate(SPLITS)}
    for word in words.unique(maintain_order=True):
        if word not in place_of:
            raise DataError(
                f"split.column: expected one of {', '.join(SPLITS)}, got {word!r}{nearest(str(word), SPLITS)}"
            )
    placed_N = words.replace_strict(place_of, return_dtype=pl.Int8).to_numpy()
    placed = placed_N[sessions.offsets[:-1]]
    torn = np.flatnonzero(placed_N != placed[sessions.owner()])
    if len(torn):
        raise DataError(f"split.column: request {sessions.ids[sessions.owner()[torn[0]]]} is in several splits")
    return placed


def _range(first: int, last: int) -> str:
    begin, end = (np.datetime64(time, "us") for time in (first, last))
    return f"the logs run from {begin} to {end} UTC"
