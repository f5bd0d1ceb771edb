"""What the sweep says of a slice's requests: the columns of session tables that are made of the past."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from features import hashing
from features.hashing import LINE
from features.pipeline.job import BuildJob
from features.pipeline.prepare import PreparedSlice
from features.pipeline.side_columns import SideColumns
from features.store.open_windows import kept_for
from features.sweep.event_queue import Merge
from features.sweep.events import Answers, Events, Per, RequestKeys
from features.sweep.history_values import HistoryValues
from features.sweep.key_rows import hashed
from features.sweep.request_shares import shares, sizes
from features.sweep.sweep import Mapper, Sweep
from features.sweep.value_totals import fixed
from features.transforms.counters import SHARE, asked_by, counted_by, counters, outcome
from features.transforms.joins import column_of

Columns = dict[str, np.ndarray | pa.Array]
Keys = tuple[np.ndarray, np.ndarray]  # hashes uint64 [n], and whether there is a key [n] bool


class PointInTime:
    """The sweep of a build, fed and asked slice by slice."""

    def __init__(
        self, job: BuildJob, sides: Mapping[str, SideColumns], mapped: Mapper, *, sweep: Sweep | None = None
    ) -> None:
        """Nothing is known; `mapped` works on the keys of a spec, several at a time or one by one.

        `merge` says where the events of the last slice went in the queue.
        """
        self.job, self._sides, self._mapped = job, sides, mapped
        self.sweep = sweep or Sweep(job.spec, kept=kept_for(job.spec, job.described) if job.snapshot else 0)
        self.merge = Merge(0, None)
        self.values = {name: HistoryValues(name, feature) for name, feature in self.sweep.histories_of.items()}
        self._of_table: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._numbers: dict[str, np.ndarray] = {}

    def columns(self, prepared: PreparedSlice) -> tuple[Columns, Columns]:
        """Values per request [B] of the context, and per impression [N] of the candidates."""
        sweep, spec = self.sweep, self.job.spec
        rows = dict(
            zip(
                sweep.groups,
                self._mapped(lambda per: sweep.groups[per].rows(*self.keys(counted_by(per), prepared)), sweep.groups),
                strict=True,
            )
        )
        people = None
        if sweep.histories:
            people = sweep.rows_of_people(*self.keys((str(spec.keys.user),), prepared))
        self.merge = sweep.feed(self.events(prepared, rows, people))  # type: ignore[arg-type]  # a mapper says nothing of what it maps
        for per in sweep.groups:
            if asked_by(per) != counted_by(per):
                rows[per] = sweep.groups[per].rows(*self.keys(asked_by(per), prepared))
        first, grouped = prepared.first, prepared.grouped
        sides = {side: {c.per for c in sweep.counters if c.side == side} for side in ("context", "candidates")}
        requests = RequestKeys(
            grouped.time,
            grouped.offsets,
            {per: rows[per][first] for per in sides["context"]},  # type: ignore[index]
            {per: rows[per] for per in sides["candidates"]},  # type: ignore[misc]
            None if people is None else people[first],
            self.open_sessions(prepared) if sweep.sessions else None,
        )
        return self.answered(sweep.ask(requests, mapped=self._mapped), grouped.time)

    def answered(self, answers: Answers, time: np.ndarray) -> tuple[Columns, Columns]:
        """Answers to requests at `time` [B] as columns of both sides."""
        context: Columns = dict(answers.context)
        for name, history in answers.histories.items():
            context[name] = self.values[name].listed(history, time)
        return context, dict(answers.candidates)

    def events(self, prepared: PreparedSlice, rows: Mapping[Per, np.ndarray], people: np.ndarray | None) -> Events:
        """The impressions of a slice in order of time, of the rows of their keys and of their users [N]."""
        order = prepared.by_time
        outcomes = np.empty((len(self.sweep.tasks), len(order)), np.int8)
        for place, task in enumerate(self.sweep.tasks):
            outcomes[place] = outcome(prepared.labels, task)[order]
        values = {}
        for name in self.sweep.histories:
            held, known = self.held(name, prepared)
            values[name] = held[order], known[order]
        numbers = {column: self.number(column, prepared)[order] for column in self.sweep.numbers}
        rows = {per: row[order] for per, row in rows.items()}
        people = None if people is None else people[order]
        time, line = prepared.moments[order], prepared.rows[LINE].to_numpy()[order]
        request = None
        if self.sweep.expects:
            request = np.repeat(prepared.rows[LINE].to_numpy()[prepared.first], prepared.grouped.count())[order]
        return Events(time, line, outcomes, rows, people, values, numbers, request)

    def keys(self, per: Per, prepared: PreparedSlice) -> Keys:
        """The hash of a key for every impression [N], and whether it is known."""
        parts = [self.hashed(column, prepared) for column in per]
        known = parts[0][1]
        for _, other in parts[1:]:
            known = known & other
        return hashing.combined([code for code, _ in parts]), known

    def hashed(self, column: str, prepared: PreparedSlice) -> Keys:
        """The hash of a column's value for every impression [N], and whether there is one."""
        if column not in prepared.hashes:
            table = self.job.origins[column].table
            if table in prepared.places:
                prepared.hashes[column] = self._sides[table].hashed(column, _places(table, prepared))
            else:
                values = prepared.rows[column]
                prepared.hashes[column] = hashed(values), values.is_not_null().to_numpy()
        return prepared.hashes[column]

    def open_sessions(self, prepared: PreparedSlice) -> np.ndarray:
        """The rows of requests' sessions [B]: their user's, or by their ids."""
        keys, first = self.job.spec.keys, prepared.grouped.rows[prepared.first]
        named = [first[str(keys.user)]] + ([] if keys.session is None else [first[keys.session]])
        code, missing = hashing.together(named)
        return self.sweep.open_sessions.rows(code, ~missing)

    def held(self, name: str, prepared: PreparedSlice) -> tuple[np.ndarray, np.ndarray]:
        """What a history holds of every impression [N] int64, and whether it holds it."""
        feature = self.job.spec.context[name]
        column = column_of(feature, name, self.job.spec)
        table = self.job.origins[column].table
        if table not in prepared.places:
            return self.values[name].coded(prepared.rows[column])
        if name not in self._of_table:
            self._of_table[name] = self.values[name].coded(self._sides[table].whole(column))
        (coded, known), places = self._of_table[name], _places(table, prepared)
        return coded[places], known[places]

    def number(self, column: str, prepared: PreparedSlice) -> np.ndarray:
        """A column's value of every impression [N] as totals of values take it."""
        if column == SHARE:
            count, owner = prepared.grouped.count(), prepared.grouped.owner()
            return shares(sizes(owner, prepared.moments, count[owner]))
        table, where = self.job.origins[column].table, next(c for c in counters(self.job.spec) if c.column == column)
        path = f"{where.side}.{where.name}"
        if table not in prepared.places:
            return fixed(prepared.rows[column], path)
        if column not in self._numbers:
            self._numbers[column] = fixed(self._sides[table].whole(column), path)
        return self._numbers[column][_places(table, prepared)]


def _places(table: str, prepared: PreparedSlice) -> np.ndarray:
    """The rows of a side table that hold for every impression [N]."""
    places = prepared.places[table]
    return places if table == "items" else np.repeat(places, np.diff(prepared.grouped.offsets))
