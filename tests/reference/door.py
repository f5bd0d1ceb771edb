"""The slow door: what one value of a session-table row becomes, in plain Python."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta

import numpy as np

from rec.data.encoders import Hash, Vocabulary
from rec.spec import Id, Ids, Number, Vector
from rec.spec.features import IN_REQUEST

DAY = 86_400_000_000
WORD = 2**64
FLOAT32 = float(np.finfo(np.float32).max)


def value(spec, encoders, row, side, name, *, index=None):
    """The value of a feature for a row, or for its candidate at `index`: an id, a list, or a number (NaN: missing)."""
    feature = dict(spec.sides())[side][name]
    given = row["context"] if index is None else row["candidates"][index]
    if isinstance(feature, Id) and feature.make in ("hour", "weekday"):
        return clock(feature.make, row["time"])
    if isinstance(feature, Id) and feature.make == "cross":
        return crossed([_raw(spec, row, raw_value, index) for raw_value in feature.of], feature.rows)
    if isinstance(feature, Number):
        number = _compared(spec, row, feature, index) if feature.make in IN_REQUEST else None
        number = _number(feature, given[name], row["time"]) if number is None else number
        return bucket(encoders[name].edges.tolist(), number) if feature.scale == "quantile" else number
    if isinstance(feature, Vector):
        many = [None] * feature.size if given[name] is None else given[name]
        return [float("nan") if raw_value is None else raw_value for raw_value in many]
    table = encoders[spec.table_of(side, name)]
    if isinstance(feature, Ids):
        rows = [_row(table, raw_value) for raw_value in given[name] or []][-feature.last :]
        return [0] * (feature.last - len(rows)) + rows
    return _row(table, given[name])


def clock(make, time):
    """The hour from 1, or the day of the week from 1 (Monday)."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return when.hour + 1 if make == "hour" else when.weekday() + 1


def bucket(edges, number):
    """0 where missing, else one more than the edges that are not above it."""
    return 0 if math.isnan(number) else 1 + sum(edge <= number for edge in edges)


def compared(make, numbers, index):
    """One of a request's numbers among all of them, in fp64; missing ones (NaN) take no part."""
    own, known = numbers[index], [x for x in numbers if not math.isnan(x)]
    if math.isnan(own):
        return own
    others = [x for i, x in enumerate(numbers) if i != index and not math.isnan(x)] or [own]
    mean = sum(known) / len(known)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in known) / len(known))
    largest = max(abs(x) for x in known)
    value = {
        "rank": sum((x < own) + 0.5 * (x == own) for x in others) / len(others),
        "gap": own - mean,
        "share": own / largest if largest else 0.0,
        "zscore": (own - mean) / deviation if min(known) < max(known) and deviation else 0.0,
        "best": own - max(others),
    }[make]
    return min(max(value, -FLOAT32), FLOAT32)


def crossed(raw, rows):
    """A row of a table from several ids, or 0 where one is missing."""
    if None in raw:
        return 0
    state, *others = (hashed(raw_value) for raw_value in raw)
    for other in others:
        state = mixed(mixed(state) ^ other)
    return state % (rows - 1) + 1


def hashed(raw_value):
    """64 bits of an id."""
    if isinstance(raw_value, str):
        return int.from_bytes(hashlib.blake2b(raw_value.encode(), digest_size=8).digest(), "little")
    return mixed(raw_value % WORD)


def mixed(state):
    """One step of SplitMix64."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def _raw(spec, row, name, index):
    """The id that is crossed, wherever it stands."""
    side = "candidates" if index is not None and name in spec.candidates else "context"
    feature = dict(spec.sides())[side][name]
    if feature.make != "column":
        return clock(feature.make, row["time"])
    return row["context"][name] if side == "context" else row["candidates"][index][name]


def _compared(spec, row, feature, index):
    """A number of the request alone."""
    if feature.make == "size":
        return float(len(row["candidates"]))
    of = spec.candidates[feature.of]
    number = [_number(of, candidate[feature.of], row["time"]) for candidate in row["candidates"]]
    return float(np.float32(compared(feature.make, number, index)))


def _number(feature, given, time):
    if given is None:
        return float("nan")
    return float(np.float32((time - given) / DAY)) if feature.make in ("age", "since", "since_first") else given


def _row(table, raw_value):
    if raw_value is None:
        return 0
    if isinstance(table, Hash):
        return hashed(raw_value) % (table.rows - 1) + 1
    assert isinstance(table, Vocabulary)
    known = table.values.to_pylist()
    return known.index(raw_value) + 1 if raw_value in known else 0
