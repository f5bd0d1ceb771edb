"""A table of users or items for a replay: which row holds for a key as of a request; its columns, converted once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.sweep.as_of_rows import AsOfRows
from features.transforms import attributes
from features.transforms.joins import SINCE, SideTable
from rec.spec import AnyFeature, Spec


class SideColumns:
    """A side table [R] and behind its last row one of nulls, which is that of keys it does not have."""

    def __init__(self, table: SideTable) -> None:
        """Nothing of it holds yet, where rows have a timestamp from which they do."""
        self.table = table
        nothing = table.rows.clear(1)
        self._rows = pl.concat([table.rows, nothing])
        self._hashed: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._attributes: dict[str, pa.Array] = {}
        self.index = self._index()

    def held(self, time: np.ndarray, offsets: np.ndarray, code: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The rows that hold as of requests at `time` [B], ascending, for the hashes of keys [N]; R for none."""
        return self.index.held(time, offsets, self.index.table.find(code, known))

    def column(self, name: str, places: np.ndarray) -> pl.Series:
        """The values of a column in some rows."""
        return self._rows[name].gather(places)

    def hashed(self, name: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of a column's values in some rows, and whether there is a value."""
        if name not in self._hashed:
            column = self._rows[name]
            self._hashed[name] = hashing.hashed(column), column.is_not_null().to_numpy()
        code, known = self._hashed[name]
        return code[places], known[places]

    def attribute(self, spec: Spec, where: str, feature: AnyFeature, column: str, places: np.ndarray) -> pa.Array:
        """A feature that is an attribute, as session tables store it, of some rows."""
        if where not in self._attributes:
            values = attributes.attribute(spec, where, feature, self._rows[column])
            self._attributes[where] = attributes.stored(values, feature, where)
        return self._attributes[where].take(pa.array(places))

    def whole(self, name: str) -> pl.Series:
        """A column [R + 1]."""
        return self._rows[name]

    @cached_property
    def keys(self) -> pl.Series:
        """The key of every row [R]."""
        return self.table.rows[self.table.key]

    def _index(self) -> AsOfRows:
        since = self.table.rows[SINCE].dt.timestamp("us").to_numpy() if self.table.changing else None
        return AsOfRows(hashing.hashed(self.keys), since)


class PlacedSide:
    """What checks ask of a side table, of impressions whose rows in it are known."""

    def __init__(self, side: SideColumns, places: np.ndarray, of_request: np.ndarray) -> None:
        """`places` are the rows of impressions [N], `of_request` those of requests [B]."""
        self.key, self._side = side.table.key, side
        self._places, self._of_request = places, of_request

    def lacks(self, _keys: pl.DataFrame, _time: np.ndarray) -> pl.Series:
        """Whether it has nothing of the key of each impression [N]."""
        return pl.Series(self._places == len(self._side.index))

    def joined(self, rows: pl.DataFrame, columns: list[str], _time: np.ndarray) -> pl.DataFrame:
        """Requests [B] with some of its columns."""
        return rows.with_columns(self._side.column(name, self._of_request).alias(name) for name in columns)
