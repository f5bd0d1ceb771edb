"""What a store remembers of the rows that it was fed, so that a post that is sent again changes nothing.

Hashes of rows, in two tables: of this stretch of time and of the one before it. A row is remembered for as long as the
longest window, and an hour at least; about 24 to 48 bytes for each.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from features.logs.timestamps import TIME
from features.sweep.key_rows import KeyRows

HOUR = 3_600_000_000  # microseconds


class FedRows:
    """The rows of a log that were fed lately."""

    def __init__(self, window: int) -> None:
        """None; rows are remembered for `window` microseconds, or an hour."""
        self._stretch = max(window, HOUR)
        self._begin: int | None = None
        self._now, self._before = KeyRows(), KeyRows()

    def fresh(self, rows: pl.DataFrame) -> np.ndarray:
        """Which rows [n] are not like one before them, among these or among those that were fed lately [n] bool."""
        if rows.is_empty():
            return np.ones(0, bool)
        code = rows.hash_rows()
        new = code.is_first_distinct().to_numpy()
        codes = code.to_numpy()
        known = (self._now.find(codes) > 0) | (self._before.find(codes) > 0)
        self._turn(int(rows[TIME].dt.timestamp("us").max()))  # type: ignore[arg-type]  # of int64
        self._now.add(codes)
        return new & ~known

    def table(self) -> pa.Table:
        """The hashes, and how old each is: 0 of this stretch, 1 of the one before; the stretch's beginning."""
        now, before = self._now.codes(), self._before.codes()
        age = np.repeat(np.array([0, 1], np.int8), [len(now), len(before)])
        begin = np.full(len(age), 0 if self._begin is None else self._begin)
        return pa.table({"hash": np.concatenate([now, before]), "age": age, "begin": begin})

    def fill(self, table: pa.Table) -> None:
        """What `table` gave."""
        code, age = table["hash"].to_numpy(), table["age"].to_numpy()
        self._now.add(code[age == 0])
        self._before.add(code[age == 1])
        self._begin = int(table["begin"][0].as_py()) if len(table) else None

    def _turn(self, time: int) -> None:
        """Forget what is older than a stretch, where a row begins a new one."""
        if self._begin is None:
            self._begin = time
        elif time >= self._begin + self._stretch:
            far = time >= self._begin + 2 * self._stretch
            self._before, self._now = KeyRows() if far else self._now, KeyRows()
            self._begin = time
