"""A request as a session-table row: what was sent, the latest rows of its user and items, and what is remembered.

Nothing is done per candidate: a column is one gather, a counter one gather of a running total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from features import keys
from features.casts import cast, failed
from features.counts import Counter
from features.joins import Origin
from features.latest import Field, Latest, fields, hash_of, table_of
from features.memory import Memory
from features.sittings import Sittings
from rec.arrow import TIME, schema, to_rows
from rec.encode import mix
from rec.errors import DataError, nearest
from rec.spec import Number, Spec

SIDES = ("context", "candidates")


class Sent:
    """Values that a request says of a column: `kind` is the column's type in the logs, `where` it stands in errors."""

    def __init__(self, spec: Spec, where: str, kind: pl.DataType, values: Sequence[object]) -> None:
        self._spec, self._where, self._kind, self._values = spec, where, kind, values

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._values)

    def first(self) -> Sent:
        """The first of them."""
        return Sent(self._spec, self._where, self._kind, self._values[:1])

    @cached_property
    def series(self) -> pl.Series:
        """The values as the logs hold them; DataError where they are of another type."""
        try:
            values = pl.Series(self._where, self._values, strict=False)
            made = cast(values, self._kind, unit=self._spec.keys.time_unit)
            lost = failed(values, made)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise DataError(f"{self._where}: expected {self._kind}: {str(error).splitlines()[0]}") from None
        if lost.any():
            raise DataError(f"{self._where}: expected {self._kind}, got {values.filter(lost)[0]!r}")
        return made

    def of(self, field: Field) -> pa.Array:
        """A column made of them [n]."""
        kind = field.direct(self._kind)
        try:
            made = None if kind is None else pa.array(self._values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            made = None
        if made is None:
            return field.of(self._spec, self.series)
        if field.feature is not None:
            return made
        code = mix(made.fill_null(0).to_numpy())
        return pa.array(code, mask=made.is_null().to_numpy(zero_copy_only=False) if made.null_count else None)

    def keys(self) -> Sequence[object]:
        """The values as keys of rows."""
        plain = np.asarray(self._values).dtype.kind
        if (plain in "iu" and self._kind.is_integer()) or (plain == "U" and self._kind == pl.String()):
            return self._values
        return self.series.to_list()


@dataclass(frozen=True)
class Asked:
    """A request: its moment, and the values sent of columns, one of the context [1] and one per candidate [N]."""

    time: int
    request_id: str
    context: Mapping[str, Sent]
    candidates: Mapping[str, Sent]
    count: int


class Hydrator:
    """Makes rows of requests, from what a store keeps."""

    def __init__(
        self,
        spec: Spec,
        origins: Mapping[str, Origin],
        kinds: Mapping[str, pl.DataType],
        *,
        memory: Memory,
        sittings: Sittings,
        latest: Mapping[str, Latest],
    ) -> None:
        """`kinds` are the types of the columns in the logs."""
        self.spec, self.origins, self.kinds = spec, origins, kinds
        self.memory, self.sittings, self.latest = memory, sittings, latest
        self.shape = schema(spec, labels=False)
        self.fields = {side: {field.name: field for field in fields(spec, side)} for side in SIDES}
        self.groups: dict[str, dict[tuple[str, ...], list[Counter]]] = {side: {} for side in SIDES}
        for counter in memory.counters:
            self.groups[counter.side].setdefault(counter.per, []).append(counter)
        self.sits = [
            (name, feature.make)
            for name, feature in spec.context.items()
            if isinstance(feature, Number) and feature.make in ("session_requests", "session_seconds")
        ]
        self._called = {side: self._names(side) for side in SIDES}

    def asked(
        self,
        time: int,
        request_id: str,
        *,
        user: object,
        items: Sequence[object],
        context: Mapping[str, object],
        candidates: Mapping[str, Sequence[object]],
    ) -> Asked:
        """A request of values by the names of features or of columns of the logs.

        Raises DataError for a name that is neither, a column of another length than `items`, a value of another type.
        """
        keyed = self.spec.keys
        one = {**({} if keyed.user is None else {keyed.user: user}), **context}
        if keyed.session is not None:
            one.setdefault(keyed.session, None)
        many = {**({} if keyed.item is None else {keyed.item: items}), **candidates}
        sent = dict(self._sent("context", name, [value]) for name, value in one.items())
        columns = dict(self._sent("candidates", name, values) for name, values in many.items())
        for name, column in columns.items():
            if len(column) != len(items):
                raise DataError(f"candidates.{name}: expected {len(items)} values, one per item, got {len(column)}")
        return Asked(time, request_id, sent, columns, len(items))

    def row(self, asked: Asked) -> pa.RecordBatch:
        """The session-table row, without labels."""
        filling = _Filling(self, asked)
        return to_rows(
            self.shape,
            request_id=pa.array([asked.request_id], pa.string()),
            time=pa.array([asked.time]).cast(TIME),
            context=filling.side("context"),
            candidates=filling.side("candidates"),
            offsets=np.array([0, asked.count]),
        )

    def _names(self, side: str) -> dict[str, str]:
        """What a sent value may be called: a column of the logs, or a feature made of one."""
        made = {field.name: field.column for field in self.fields[side].values() if field.feature is not None}
        return {**made, **{column: column for column in self.kinds}}

    def _sent(self, side: str, name: str, values: Sequence[object]) -> tuple[str, Sent]:
        column = self._called[side].get(name)
        if column is None:
            raise DataError(f"{side}.{name}: no such feature or column{nearest(name, self._called[side])}")
        return column, Sent(self.spec, f"{side}.{name}", self.kinds[column], values)


class _Filling:
    """One request while its row is made."""

    def __init__(self, hydrator: Hydrator, asked: Asked) -> None:
        self._of, self._asked = hydrator, asked
        self._bases: dict[str | None, float] = {}

    def side(self, side: str) -> dict[str, pa.Array]:
        """Every stored feature of a side."""
        made = {
            name: self._column(side, field)
            for name, field in self._of.fields[side].items()
            if field.feature is not None
        }
        for per, counters in self._of.groups[side].items():
            made |= self._counted(side, per, counters)
        if side == "context":
            made |= self._remembered()
            return made
        count = self._asked.count
        return {name: column if len(column) == count else _repeated(column, count) for name, column in made.items()}

    def _column(self, side: str, field: Field) -> pa.Array:
        """A column of the context [1], or of the candidates [N] or, where it is one value for all of them, [1]."""
        sent = self._sent(side, field.column)
        if sent is not None:
            return sent.of(field)
        latest, rows = self._stored(side, field)
        return latest.take(field.name, rows)

    def _sent(self, side: str, column: str) -> Sent | None:
        asked = self._asked
        if side == "candidates":
            return asked.candidates.get(column) or asked.context.get(column)
        if column in asked.context:
            return asked.context[column]
        # the context is read from the row of the first candidate
        return asked.candidates[column].first() if column in asked.candidates else None

    def _stored(self, side: str, field: Field) -> tuple[Latest, np.ndarray]:
        """Where a column is stored that was not sent: the latest rows of users or items, and which of them."""
        table = table_of(self._of.spec, self._of.origins, field)
        rows = self._user if table == "users" else self._items
        return self._of.latest[table], rows[:1] if side == "context" else rows

    @cached_property
    def _user(self) -> np.ndarray:
        key = self._of.spec.keys.user
        return self._of.latest["users"].find([None] if key is None else self._asked.context[key].keys())

    @cached_property
    def _items(self) -> np.ndarray:
        key = self._of.spec.keys.item
        known = [None] * self._asked.count if key is None else self._asked.candidates[key].keys()
        return self._of.latest["items"].find(known)

    def _places(self, side: str, per: tuple[str, ...]) -> np.ndarray:
        """Where the totals of a key are, of the context [1] or the candidates [N] or [1]; -1 where it is missing."""
        found = [self._of.fields[side][hash_of(side, column)] for column in per]
        keyed = (self._of.spec.keys.user, self._of.spec.keys.item)
        if len(per) == 1 and (per[0] in keyed or self._sent(side, per[0]) is None):
            latest, rows = self._stored(side, found[0])
            if per[0] not in keyed or rows.all():
                return latest.counted(found[0].name, rows)
        hashes = [self._column(side, field) for field in found]
        missing = np.zeros(1, bool)
        for column in hashes:
            if column.null_count:
                missing = missing | column.is_null().to_numpy(zero_copy_only=False)
        code = keys.combined([column.fill_null(0).to_numpy() for column in hashes])
        return np.where(missing, -1, self._of.memory.totals[per].keys.find(code))

    def _counted(self, side: str, per: tuple[str, ...], counters: Sequence[Counter]) -> dict[str, pa.Array]:
        totals, places = self._of.memory.totals[per], self._places(side, per)
        missing, rows = places < 0, np.maximum(places, 0)
        some = bool(missing.any())
        made = {}
        for counter in counters:
            values = totals.read(counter, rows, self._base(counter))
            if counter.make == "since":
                made[counter.name] = pa.array(values, mask=missing | (values == 0)).cast(TIME)
            else:
                made[counter.name] = pa.array(values.astype(np.float32), mask=missing if some else None)
        return made

    def _base(self, counter: Counter) -> float:
        if counter.make != "rate":
            return 0.0
        if counter.task not in self._bases:
            self._bases[counter.task] = self._of.memory.bases[str(counter.task)].at(self._asked.time)
        return self._bases[counter.task]

    def _remembered(self) -> dict[str, pa.Array]:
        """Histories, and how the session was so far."""
        asked, memory = self._asked, self._of.memory
        if not memory.histories and not self._of.sits:
            return {}
        keyed = self._of.spec.keys
        user = self._hash(str(keyed.user))
        person = 0 if user.null_count else int(memory.people.find(user.to_numpy())[0])
        made = {name: memory.history(name, person, asked.time) for name in memory.histories}
        if self._of.sits:
            who = [user] if keyed.session is None else [user, self._hash(keyed.session)]
            earlier = past = 0
            if not any(column.null_count for column in who):
                code = keys.combined([column.to_numpy() for column in who])
                earlier, past = self._of.sittings.so_far(int(code[0]), asked.time)
            figures = {"session_requests": earlier, "session_seconds": past / 1_000_000}
            made |= {name: pa.array([figures[make]], pa.float32()) for name, make in self._of.sits}
        return made

    def _hash(self, column: str) -> pa.Array:
        return self._asked.context[column].of(Field(column, column, pa.uint64(), "context"))


def _repeated(column: pa.Array, count: int) -> pa.Array:
    return column.take(pa.array(np.zeros(count, np.int64)))
