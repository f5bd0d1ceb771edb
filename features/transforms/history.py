"""User histories: the last values of a column over a user's impressions, or over those with an event.

One sort of a user's events serves every history: a mask selects the events of a history, and a running count of the
mask converts a range of all events to a range of that history.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features.transforms.counters import EventIndex
from features.transforms.joins import column_of
from rec.request import spans
from rec.spec import Ids, Spec
from rec.spec.tasks import behaviours


def latest(
    spec: Spec,
    name: str,
    feature: Ids,
    *,
    rows: pl.DataFrame,
    labels: Mapping[str, np.ndarray],
    past: EventIndex,
    places: np.ndarray,
    time_Q: np.ndarray,
) -> tuple[pa.Array, np.ndarray]:
    """The values of a history for some users as of some timestamps, flat and oldest first, and their offsets [Q + 1].

    `rows` [N] and `labels` are the events of the index `past`, `places` the users' places in it (-1: unknown user).
    """
    column = rows[column_of(feature, name, spec)]
    mask = column.is_not_null().to_numpy()
    lag = 0
    if feature.task is not None:
        mask = mask & (labels[feature.task] == 1)
        lag = behaviours(spec)[feature.task].window // timedelta(microseconds=1)
    events = past.order[mask[past.order]]
    before = np.concatenate([[0], np.cumsum(mask[past.order])])
    first, last = past.between(places, time_Q - lag, None)
    start, end = before[first], before[last]
    length = np.minimum(end - start, feature.last)
    taken = events[spans(end - length, length)]
    offsets = np.concatenate([[0], np.cumsum(length)])
    if feature.make == "gaps":
        shown = rows["@time"].dt.timestamp("us").to_numpy()[taken]
        seconds = (np.repeat(time_Q, length) - shown) // 1_000_000
        return pa.array(bucketed(seconds)), offsets
    values = column[taken]
    if feature.buckets:
        return pa.array(bucketed(values.cast(pl.Float64).to_numpy())), offsets
    return flat(values), offsets


def bucketed(values: np.ndarray) -> np.ndarray:
    """Logarithmic bucket ids of numbers [n] int64: 1 + floor(log2(1 + v)); negative numbers are treated as 0."""
    return np.frexp(1.0 + np.maximum(values, 0))[1].astype(np.int64)


def flat(values: pl.Series) -> pa.Array:
    """Values of a column as stored in a history: integers, or text."""
    whole = values.dtype.is_integer() or values.dtype == pl.Boolean
    return values.cast(pl.Int64).to_arrow() if whole else values.cast(pl.String).to_arrow().cast(pa.string())
