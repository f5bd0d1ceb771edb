"""64-bit hashes of keys: what events are counted by, and the buckets that a cluster divides keys into.

Int keys are mixed by a bijection, so they never collide. Text and tuples may: among 100 million of them
the chance that any two do is under one in a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec.data.encoders import mix
from rec.errors import SpecError

CODE = "@code"  # the hash of a row's user (anonymous: of its request)
LINE = "@line"  # where a row stood in the logs
_SEED = 20_260_302


def hashed(values: pl.Series) -> np.ndarray:
    """The hash of every value [n] uint64; undefined for nulls. SpecError for lists."""
    kind = values.dtype
    if kind.is_nested():
        raise SpecError(f"column {values.name!r}: expected one value per row to count by, got {kind}")
    if kind.is_integer() or kind == pl.Boolean:
        return mix(values.fill_null(0).cast(pl.Int64).to_numpy())
    return mix(values.cast(pl.String).hash(_SEED).to_numpy().astype(np.int64))


def together(columns: Sequence[pl.Series]) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every tuple [n] uint64, and whether any part of it is null [n] bool."""
    code = combined([hashed(column) for column in columns])
    missing = np.zeros(len(code), bool)
    for column in columns:
        if column.null_count():
            missing |= column.is_null().to_numpy()
    return code, missing


def combined(codes: Sequence[np.ndarray]) -> np.ndarray:
    """The hash of every tuple [n] uint64 from the hashes of its parts; a single part keeps its hash."""
    code = codes[0]
    for other in codes[1:]:
        with np.errstate(over="ignore"):
            code = mix((code * np.uint64(3) + other).astype(np.int64))
    return code


def bucket(code: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` equal ranges a hash falls into [n] int64."""
    return ((code >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
