"""The columns that trees read: a request batch as one matrix [N, F] float32, NaN where missing.

    number      as it is, unscaled                              vector      a column per number
    bucket      the number of its bucket; an hour, a weekday    length      how many known ids a list has
    code        an id by how often training has it, 1 the most frequent; ids beyond `most` share one code
    newest      the code of a list's last id
    same        how often a candidate's id is the context's id, or stands in its list, of the same table

Nothing is made of labels. The features are those of the networks, without those that are a bias: both leave out what is
`kept`. A list is more to a network than to trees: what of it is not in these columns is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rec.request import RequestBatch
from rec.spec import Id, Ids, Kept, Spec, Vector, has_rows
from rec.spec.features import CLOCKS, is_bias

MISSING = np.float32("nan")
Codes = Mapping[str, np.ndarray]  # by table: the code of every row [rows] float32, NaN of row 0


@dataclass(frozen=True)
class Column:
    """A column: how it is made of a feature of a side; `index` is of a vector, `table` of ids.

    Of `same`, `feature` is the candidate's id, and `other` what of the context it is compared with: `many` ids or one.
    """

    side: str
    feature: str
    make: str
    index: int = 0
    table: str = ""
    other: str = ""
    many: bool = False

    @property
    def name(self) -> str:
        """`candidates.price`, `context.clicked (length)`, as messages have it."""
        of = {"vector": str(self.index), "same": self.other}.get(self.make, self.make)
        return f"{self.side}.{self.feature}" + ("" if self.make in ("number", "bucket", "code") else f" ({of})")


def columns(spec: Spec) -> list[Column]:
    """The columns of a spec: those of the context, those of candidates, and what compares the two."""
    return [
        *(column for side, _ in spec.sides() for column in _of_side(spec, side)),
        *_compared(spec),
    ]


def _of_side(spec: Spec, side: str) -> Iterator[Column]:
    for name, feature in dict(spec.sides())[side].items():
        if isinstance(feature, Kept) or is_bias(feature):
            continue
        if isinstance(feature, Vector):
            yield from (Column(side, name, "vector", index) for index in range(feature.size))
        elif isinstance(feature, Ids):
            yield Column(side, name, "length")
            yield Column(side, name, "newest", table=spec.table_of(side, name))
        elif isinstance(feature, Id) and feature.make not in CLOCKS:
            yield Column(side, name, "code", table=spec.table_of(side, name))
        else:
            yield Column(side, name, "bucket" if has_rows(feature) else "number")


def _compared(spec: Spec) -> Iterator[Column]:
    for name, feature in spec.candidates.items():
        if not isinstance(feature, Id) or feature.make != "column" or is_bias(feature):
            continue
        table = spec.table_of("candidates", name)
        for other, known in spec.context.items():
            ids = isinstance(known, Id | Ids) and not is_bias(known) and known.make not in (*CLOCKS, "cross")
            if ids and spec.table_of("context", other) == table:
                yield Column("candidates", name, "same", table=table, other=other, many=isinstance(known, Ids))


def matrix(batch: RequestBatch, feature_columns: Iterable[Column], codes: Codes) -> np.ndarray:
    """The columns of a numpy batch [N, F] float32; those of the context are made once per request."""
    values = [_values(batch, column, codes) for column in feature_columns]
    return np.stack([value if len(value) == len(batch.owner) else value[batch.owner] for value in values], 1)


def _values(batch: RequestBatch, column: Column, codes: Codes) -> np.ndarray:
    """One column [B] or [N] float32."""
    side = batch.context if column.side == "context" else batch.candidates
    value = side[column.feature]
    match column.make:
        case "vector":
            return value[:, column.index]
        case "bucket":
            return np.where(value > 0, value, MISSING).astype(np.float32)
        case "code":
            return codes[column.table][value]
        case "length":
            return (value != 0).sum(1).astype(np.float32)
        case "newest":
            return codes[column.table][value[:, -1]]
        case "same":
            past = batch.context[column.other][batch.owner].reshape(len(value), -1)
            return ((past == value[:, None]) & (value[:, None] != 0)).sum(1).astype(np.float32)
        case _:
            return value


def counted(
    batches: Iterable[RequestBatch], feature_columns: Iterable[Column], rows: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """How often each row of every table that has codes occurs [rows] int64; one of the context once per request."""
    features = {
        (column.side, column.feature): column.table for column in feature_columns if column.make in ("code", "newest")
    }
    counts = {table: np.zeros(rows[table], np.int64) for table in features.values()}
    for batch in batches:
        for (side, feature), table in features.items():
            value = (batch.context if side == "context" else batch.candidates)[feature]
            counts[table] += np.bincount(value.ravel(), minlength=rows[table])
    return counts


def codes_of(counts: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Codes by frequency, 1 the most frequent, equal ones in order of rows; those beyond `most`, and rows that training
    never had, have the code most + 1.

    >>> codes_of({"item": np.array([9, 2, 5, 0, 2])}, 2)["item"].tolist()[1:]
    [2.0, 1.0, 3.0, 3.0]
    """  # noqa: D205
    return {table: _ranked(count, most) for table, count in counts.items()}


def _ranked(count: np.ndarray, most: int) -> np.ndarray:
    seen = count[1:]
    order = np.argsort(-seen, kind="stable")
    code = np.full(len(count), np.float32(most + 1))
    first = order[: min(most, int((seen > 0).sum()))]
    code[1 + first] = np.arange(1, len(first) + 1)
    code[0] = MISSING
    return code
