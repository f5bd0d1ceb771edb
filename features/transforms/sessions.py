"""Requests of impressions, in order of time; `features.sweep.requests` makes them, and here is what they are made by.

coded             whoever an impression belongs to, as a hash
context_columns   what does not change inside a request
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.transforms import user_columns
from features.transforms.joins import column_of
from rec.spec import Spec


@dataclass(frozen=True)
class Sessions:
    """Impressions [N] request by request, in the order in which these begin, and where each of the B requests begins.

    `time` is when a request's first impression was shown, in microseconds since 1970; 0 where the logs have no clock.
    """

    rows: pl.DataFrame
    offsets: np.ndarray
    time: np.ndarray
    ids: pa.Array

    def __len__(self) -> int:
        """Number of requests B."""
        return len(self.time)

    def count(self) -> np.ndarray:
        """How many impressions every request has [B]."""
        return np.diff(self.offsets)

    def owner(self) -> np.ndarray:
        """The request of every impression [N]."""
        return np.repeat(np.arange(len(self)), self.count())


def coded(spec: Spec, rows: pl.DataFrame, place: np.ndarray) -> np.ndarray | None:
    """The hash of each row's user [n] uint64; for anonymous rows, of its request.

    None if the logs have neither. `place` [n] int64 distinguishes rows without either.
    """
    user, request = spec.keys.user, spec.keys.request
    if user is None and request is None:
        return None
    code = hashing.hashed(rows[user or str(request)])
    if user is not None and rows[user].null_count():
        nobody = rows[user].is_null().to_numpy()
        name = rows[request] if request in rows.columns else pl.Series(place)
        # as a pair, so that it is not the hash of a user who is called by that number
        instead, _ = hashing.together([name, pl.Series(np.zeros(len(rows), np.int64))])
        code = np.where(nobody, instead, code)
    return code


def context_columns(spec: Spec, rows: pl.DataFrame) -> list[str]:
    """Impression columns of the context, without lists."""
    read = [
        column_of(f, name, spec)
        for name, f in spec.context.items()
        if getattr(f, "make", "column") in ("column", "age", "tokens")
    ]
    skipped = {spec.keys.user, spec.keys.time}
    return [c for c in dict.fromkeys(read) if c in rows.columns and c not in skipped and not rows[c].dtype.is_nested()]


def coded_context(spec: Spec, folder: Path | None, coded: Iterable[str], own: Collection[str]) -> list[str]:
    """Those of the columns made by code that part requests as logged ones do: the context reads them, they read `own`.

    `own` are columns of impressions. What reads a side table is joined to a request, and does not change inside it.
    """
    named = {column_of(feature, name, spec) for name, feature in spec.context.items()}
    made = user_columns.load(folder)
    return [name for name in coded if name in named and set(made[name].reads) <= set(own)]
