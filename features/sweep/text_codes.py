"""Text values as numbers, so that histories hold numbers alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.sweep.key_rows import KeyRows


class TextCodes:
    """Codes of text values from 1, in the order of first appearance.

    >>> words.codes(pl.Series(["a", "b", "a"])), words.of(np.array([2]))
    (array([1, 2, 1]), ["b"])
    """

    def __init__(self) -> None:
        """No words."""
        self._table = KeyRows()
        self._known: list[pa.Array] = [pa.array([""])]

    def codes(self, values: pl.Series) -> np.ndarray:
        """The codes of values [n] int64, none of them null; new values get new codes."""
        before = self._table.count
        codes = self._table.add(hashing.hashed(values)).astype(np.int64)
        new = np.flatnonzero(codes > before)
        if len(new):
            _, first = np.unique(codes[new], return_index=True)
            self._known.append(values.gather(new[first]).to_arrow().cast(pa.string()))
        return codes

    def known(self) -> pa.Array:
        """Every word, in the order of codes."""
        return self.of(np.arange(1, len(self._table)))

    def of(self, codes: np.ndarray) -> pa.Array:
        """The values of some codes, as text."""
        if len(self._known) > 1:
            self._known = [pa.concat_arrays(self._known)]
        return self._known[0].take(pa.array(codes))
