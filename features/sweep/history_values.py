"""What histories hold: values of a column as whole numbers, text by its word's number, and back as lists of ids."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from features.sweep.text_codes import TextCodes
from features.transforms import attributes
from features.transforms.history import bucketed
from rec.spec import Ids


class HistoryValues:
    """One history's values; which kind they are is that of the first column it sees."""

    def __init__(self, name: str, feature: Ids) -> None:
        """No value yet."""
        self._where, self._feature = f"context.{name}", feature
        self.words = TextCodes()
        self.as_text = False

    def coded(self, values: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """What a history holds of values [n] int64, and whether it holds anything [n] bool."""
        known = values.is_not_null().to_numpy()
        coded = np.zeros(len(values), np.int64)
        if self._feature.make == "gaps":
            return coded, known
        held = values.drop_nulls()
        if self._feature.buckets:
            coded[known] = bucketed(held.cast(pl.Float64).to_numpy())
        elif values.dtype.is_integer() or values.dtype == pl.Boolean:
            coded[known] = held.cast(pl.Int64).to_numpy()
        else:
            self.as_text = True
            coded[known] = self.words.codes(held.cast(pl.String))
        return coded, known

    def add_words(self, words: pa.ChunkedArray) -> None:
        """Words that were known before, in the order of their codes."""
        self.as_text = self.as_text or len(words) > 0
        self.words.codes(pl.Series(words))

    def listed(self, history: tuple[np.ndarray, np.ndarray, np.ndarray], request_time: np.ndarray) -> pa.Array:
        """Times, values and offsets [B + 1] as of requests at `asked` [B]: lists of ids."""
        times, values, offsets = history
        if self._feature.make == "gaps":
            flat = pa.array(bucketed((np.repeat(request_time, np.diff(offsets)) - times) // 1_000_000))
        else:
            flat = self.words.of(values) if self.as_text else pa.array(values)
        return attributes.listed_ids(flat, offsets, self._feature, self._where)
