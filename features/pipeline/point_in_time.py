"""Point-in-time features of a partition: counts, rates, times of last events, histories, and sessions so far.

Counters of keys that include the user are computed here, since all of a user's events are in the partition; the others
come from the buckets of the aggregate step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from features.pipeline import aggregate
from features.pipeline.job import BuildJob
from features.pipeline.prepare import Partition, key_of
from features.transforms import attributes, history, sessions
from features.transforms.counters import Counter, EventIndex, answers
from rec.spec import Ids, Number

Columns = dict[str, np.ndarray | pa.Array]
_SESSION = ("session_requests", "session_seconds")


@dataclass(frozen=True)
class PointInTime:
    """Point-in-time features of a partition's requests and impressions."""

    job: BuildJob
    index: int
    shard: Partition

    @cached_property
    def nobody(self) -> np.ndarray:
        """Impressions without a user [N] bool."""
        grouped = self.shard.grouped
        named = self.shard.impressions(grouped.offsets[:-1])[str(self.job.spec.keys.user)]
        return np.repeat(named.is_null().to_numpy(), np.diff(grouped.offsets))

    @cached_property
    def _of_user(self) -> EventIndex:
        grouped = self.shard.grouped
        code = np.repeat(grouped.code, np.diff(grouped.offsets))
        return EventIndex(code, self.shard.moments, self.shard.labels, place_E=grouped.place)

    def sides(self) -> tuple[Columns, Columns]:
        """Values per request [B] of the context, and per impression [N] of the candidates."""
        grouped = self.shard.grouped
        made: dict[str, Columns] = {"context": {}, "candidates": {}}
        first, owner_time = grouped.offsets[:-1], grouped.time[grouped.owner()]
        for group, per in enumerate(self.job.foreign):
            code, missing = key_of(per, self.shard.rows)
            values = aggregate.given(self.job, group, self.index, code, missing)
            for counter in self.job.groups[per]:
                whole = values[counter.name]
                made[counter.side][counter.name] = whole[first] if counter.side == "context" else whole
        for per in self.job.local:
            past, places = self._local(per)
            missing = places < 0
            for side, at, time in (("context", first, grouped.time), ("candidates", slice(None), owner_time)):
                asked = [counter for counter in self.job.groups[per] if counter.side == side]
                found = answers(past, asked, places[at], time, self.job.hours)
                made[side] |= {c.name: _without(c, found[c.name], missing[at]) for c in asked}
        made["context"] |= self._histories(self._places()[first], grouped.time) | self._sessions()
        return made["context"], made["candidates"]

    def users(self, rows: pl.DataFrame, first: np.ndarray, time: int) -> Columns:
        """Values as of `time` of some users: `rows` as of then, `first` the place of an impression of each."""
        made: Columns = {}
        times = np.full(len(first), time)
        for per in self.job.local:
            asked = [counter for counter in self.job.groups[per] if counter.side == "context"]
            if asked:
                past, _ = self._local(per)
                code, missing = key_of(per, rows)
                found = answers(past, asked, past.places(code), times, self.job.hours)
                made |= {c.name: _without(c, found[c.name], missing) for c in asked}
        made |= foreign_finals(self.job, "context", rows)
        session = {name: np.zeros(len(first)) for name, _ in self._session_features()}
        return made | self._histories(self._places()[first], times) | session

    def _places(self) -> np.ndarray:
        """The place of each impression's user among the partition's users [N]; -1 without a user."""
        if not any(isinstance(f, Ids) and f.make in ("history", "gaps") for f in self.job.spec.context.values()):
            return np.zeros(len(self.shard.rows), np.int64)
        return np.where(self.nobody, -1, self._of_user.own)

    def _local(self, per: tuple[str, ...]) -> tuple[EventIndex, np.ndarray]:
        if per == (self.job.spec.keys.user,):
            return self._of_user, np.where(self.nobody, -1, self._of_user.own)
        code, missing = key_of(per, self.shard.rows)
        kept = np.flatnonzero(~missing)
        past = EventIndex(
            code[kept], self.shard.moments[kept], {n: label[kept] for n, label in self.shard.labels.items()}
        )
        places = np.full(len(code), -1)
        places[kept] = past.own
        return past, places

    def _histories(self, places: np.ndarray, time: np.ndarray) -> Columns:
        made: Columns = {}
        for name, feature in self.job.spec.context.items():
            if isinstance(feature, Ids) and feature.make in ("history", "gaps"):
                flat, offsets = history.latest(
                    self.job.spec,
                    name,
                    feature,
                    rows=self.shard.rows,
                    labels=self.shard.labels,
                    past=self._of_user,
                    places=places,
                    time_Q=time,
                )
                made[name] = attributes.listed_ids(flat, offsets, feature, f"context.{name}")
        return made

    def _session_features(self) -> list[tuple[str, str]]:
        features = self.job.spec.context.items()
        return [(name, f.make) for name, f in features if isinstance(f, Number) and f.make in _SESSION]

    def _sessions(self) -> Columns:
        wanted = self._session_features()
        if not wanted:
            return {}
        earlier, spent = sessions.so_far(self.job.spec, self.shard.grouped)
        return {name: earlier.astype(float) if make == _SESSION[0] else spent / 1e6 for name, make in wanted}


def foreign_finals(job: BuildJob, side: str, rows: pl.DataFrame) -> Columns:
    """The values just after the log's end of the counters of a side whose keys are not the user's."""
    made: Columns = {}
    for group, per in enumerate(job.foreign):
        asked = [counter for counter in job.groups[per] if counter.side == side]
        if asked:
            found = aggregate.final(job, group, *key_of(per, rows))
            made |= {counter.name: found[counter.name] for counter in asked}
    return made


def nobodys(job: BuildJob, side: str, count: int) -> Columns:
    """The values, for anonymous rows, of a side's counters whose keys include the user."""
    asked = [counter for per in job.local for counter in job.groups[per] if counter.side == side]
    return {counter.name: aggregate.nothing(counter, count) for counter in asked}


def _without(counter: Counter, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return np.where(missing, aggregate.nothing(counter, 1)[0], values) if missing.any() else values
