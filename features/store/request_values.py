"""Values sent with a request, converted to the types of the logs and of session tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing as keys
from features.logs.dtypes import Notation, cast, failed
from features.store.entities import EntityField
from rec.data.encoders import mix
from rec.errors import DataError
from rec.spec import Spec


class RequestValues:
    """Values that a request says of a column: `kind` is the column's type in the logs, `where` it stands in errors."""

    def __init__(self, spec: Spec, where: str, kind: pl.DataType, values: Sequence[object]) -> None:
        self._spec, self._where, self._kind, self._values = spec, where, kind, values

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._values)

    def first(self) -> RequestValues:
        """The first of them."""
        return RequestValues(self._spec, self._where, self._kind, self._values[:1])

    @cached_property
    def series(self) -> pl.Series:
        """The values as the logs hold them; DataError where they are of another type."""
        try:
            values = pl.Series(self._where, self._values, strict=False)
            how = Notation.of(self._spec)
            typed = cast(values, self._kind, how)
            lost = failed(values, typed, how)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise DataError(f"{self._where}: expected {self._kind}: {str(error).splitlines()[0]}") from None
        if lost.any():
            raise DataError(f"{self._where}: expected {self._kind}, got {values.filter(lost)[0]!r}")
        return typed

    def of(self, field: EntityField, direct: pa.DataType | None) -> pa.Array:
        """A feature made of them [n]; `direct` is `field.direct` of the column's type."""
        column = self._whole if direct == pa.int64() else self._arrow(direct)
        return field.of(self._spec, self.series) if column is None else column

    @cached_property
    def hashed(self) -> tuple[np.ndarray, np.ndarray]:
        """The hash of every value [n] uint64, as `features.hashing` makes it, and where there is a value [n] bool."""
        whole = self._whole
        if whole is None:
            return keys.hashed(self.series), self.series.is_not_null().to_numpy()
        if not whole.null_count:
            return mix(whole.to_numpy()), np.ones(len(whole), bool)
        return mix(whole.fill_null(0).to_numpy()), whole.is_valid().to_numpy(zero_copy_only=False)

    def keys(self) -> Sequence[object] | np.ndarray:
        """The values as keys of rows: whole numbers as an array where none is missing, anything else as they are."""
        if self._whole is not None and not self._whole.null_count:
            return self._whole.to_numpy()
        plain = len(self._values) and all(isinstance(v, str) for v in self._values) and not self._missing
        return self._values if plain and self._kind == pl.String() else self.series.to_list()

    @cached_property
    def _whole(self) -> pa.Array | None:
        """The values as whole numbers; None where the column is not of these."""
        return self._arrow(pa.int64() if self._kind.is_integer() else None)

    @cached_property
    def _missing(self) -> bool:
        """Whether a value is text that means: no value."""
        words = self._spec.logs.missing
        return any(isinstance(value, str) and value.strip() in words for value in self._values)

    def _arrow(self, kind: pa.DataType | None) -> pa.Array | None:
        """The values as they are, of an Arrow type; None where they are not of it."""
        if kind is not None and pa.types.is_string(kind) and self._missing:
            return None
        try:
            return None if kind is None else pa.array(self._values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None


@dataclass(frozen=True)
class FeatureRequest:
    """A request: its timestamp, and the values sent of columns, one of the context [1] and one per candidate [N]."""

    time: int
    request_id: str
    context: Mapping[str, RequestValues]
    candidates: Mapping[str, RequestValues]
    count: int
