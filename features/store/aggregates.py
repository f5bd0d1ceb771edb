"""Aggregates of impressions with known outcomes: totals per key, base rates, and each user's last values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.logs.logs import EventLog
from features.logs.timestamps import TIME
from features.store.hash_index import HashIndex
from features.store.totals import NEVER, HistoryBuffers, RunningBaseRate, ScheduledUpdate, Totals
from features.transforms import attributes
from features.transforms.base_rates import BaseRates
from features.transforms.counters import counters
from features.transforms.history import bucketed, flat
from features.transforms.joins import column_of
from rec.spec import Ids, Spec
from rec.spec.tasks import behaviours

_US = timedelta(microseconds=1)


@dataclass(frozen=True)
class HistorySource:
    """What a history is of: an event, a column, and how its values are stored; two features may be of the same."""

    task: str | None
    column: str
    make: str
    values: str
    buckets: bool

    @property
    def as_text(self) -> bool:
        """Whether its values are text."""
        return self.make == "history" and self.values == "string" and not self.buckets

    @classmethod
    def of(cls, spec: Spec, name: str, feature: Ids) -> HistorySource:
        """Of a feature that is a history or its gaps."""
        return cls(feature.task, column_of(feature, name, spec), feature.make, feature.values, feature.buckets)


class Aggregates:
    """Totals, base rates and histories of a spec, and the steps by which an impression changes them."""

    def __init__(self, spec: Spec) -> None:
        """Empty aggregates."""
        self.spec = spec
        self.counters = counters(spec)
        self.totals = {
            per: Totals.of(per, self.counters) for per in dict.fromkeys(counter.per for counter in self.counters)
        }
        rated = dict.fromkeys(str(counter.task) for counter in self.counters if counter.make == "rate")
        self.bases = {task: RunningBaseRate(BaseRates.merged([])) for task in rated}
        self.people = HashIndex()
        self.histories = {
            name: (HistorySource.of(spec, name, feature), feature)
            for name, feature in spec.context.items()
            if isinstance(feature, Ids) and feature.make in ("history", "gaps")
        }
        longest: dict[HistorySource, int] = {}
        for of, feature in self.histories.values():
            longest[of] = max(longest.get(of, 0), feature.last)
        self.tracks = {of: HistoryBuffers(last) for of, last in longest.items()}
        self.words: dict[HistorySource, StringCodes] = {of: StringCodes() for of in self.tracks if of.as_text}
        self.steps = self._steps()

    @property
    def lags(self) -> dict[str | None, int]:
        """How long after an impression what is counted of it is known, in microseconds; what is shown is at once."""
        return {step.task: step.delay for step in self.steps if step.window is None}

    def horizon(self, happened: Mapping[str, EventLog]) -> int:
        """The age, in microseconds, at which all windows of an impression are closed."""
        within = [log.within // _US for log in happened.values() if log.within is not None]
        return max((step.delay for step in self.steps), default=0) + max(within, default=0)

    @property
    def kinds(self) -> dict[str, type]:
        """The arrays that are kept of every impression, in addition to its timestamp."""
        kinds: dict[str, type] = {_label(task): np.int8 for task in self.tasks()}
        kinds |= {_row(number): np.int64 for number in range(len(self.totals))}
        for number in range(len(self.tracks)):
            kinds |= {_who(number): np.int64, _what(number): np.int64}
        return kinds

    def tasks(self) -> list[str]:
        """The behaviours whose labels are read, in the order of the steps."""
        return list(dict.fromkeys(step.task for step in self.steps if step.task is not None))

    def arrays(self, rows: pl.DataFrame, label: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is kept of some impressions [n], in their order."""
        made: dict[str, np.ndarray] = {"time": rows[TIME].dt.timestamp("us").to_numpy()}
        made |= {_label(task): label[task].astype(np.int8) for task in self.tasks()}
        for number, (per, totals) in enumerate(self.totals.items()):
            made[_row(number)] = totals.add(*hashing.together([rows[column] for column in per]))
        if self.tracks:
            user = rows[str(self.spec.keys.user)]
            known = user.is_not_null().to_numpy()
            who = np.full(len(rows), -1)
            who[known] = self.people.add(hashing.hashed(user)[known])
            for number, (of, track) in enumerate(self.tracks.items()):
                track.grow(len(self.people))
                kept = rows[of.column].is_not_null().to_numpy()
                made[_who(number)] = np.where(kept, who, -1)
                made[_what(number)] = self._coded(of, rows[of.column], kept)
        return made

    def enter(self, step: ScheduledUpdate, arrays: Mapping[str, np.ndarray]) -> None:
        """A step happens to some impressions."""
        label = _read(step, arrays)
        self._change(step, arrays, old=np.full(len(label), NEVER, np.int8), new=label)

    def leave(self, step: ScheduledUpdate, arrays: Mapping[str, np.ndarray]) -> None:
        """A step did not happen to some impressions after all."""
        label = _read(step, arrays)
        self._change(step, arrays, old=label, new=np.full(len(label), NEVER, np.int8))

    def _change(
        self, step: ScheduledUpdate, arrays: Mapping[str, np.ndarray], *, old: np.ndarray, new: np.ndarray
    ) -> None:
        time = arrays["time"]
        for number, totals in enumerate(self.totals.values()):
            totals.change(step, arrays[_row(number)], old=old, new=new, time=time)
        if step.window is not None:
            return
        if step.task in self.bases:
            self.bases[str(step.task)].change(time + step.delay, old=old, new=new)
        for number, (of, track) in enumerate(self.tracks.items()):
            if of.task == step.task:
                who, what = arrays[_who(number)], arrays[_what(number)]
                for place in np.flatnonzero((who >= 0) & ((new == 1) != (old == 1))).tolist():
                    act = track.insert if new[place] == 1 else track.remove
                    act(int(who[place]), int(time[place]), int(what[place]))

    def history(self, name: str, person: int, time: int) -> pa.Array:
        """A history or its gaps of one user (a row of `people`) as of a timestamp: a list array of one."""
        of, feature = self.histories[name]
        moments, codes = self.tracks[of].read(person, feature.last)
        codes = bucketed((time - moments) // 1_000_000) if of.make == "gaps" else codes
        values = self.words[of].of(codes) if of in self.words else pa.array(codes)
        if feature.values == "string" and not of.as_text:
            values = values.cast(pa.string())
        return pa.ListArray.from_arrays(pa.array([0, len(codes)], pa.int32()), values)

    def values(self, of: HistorySource, column: pl.Series) -> pa.Array:
        """Values of a column, none of them null, as a history of it holds them: int64 or text [n]."""
        if of.make == "gaps":
            return pa.array(np.zeros(len(column), np.int64))
        if of.buckets:
            return pa.array(bucketed(column.cast(pl.Float64).to_numpy()))
        feature = next(feature for one, feature in self.histories.values() if one == of)
        lists = attributes.listed_ids(flat(column), np.array([0, len(column)]), feature, f"history of {of.column}")
        return lists.values

    def _coded(self, of: HistorySource, column: pl.Series, kept: np.ndarray) -> np.ndarray:
        coded, words = np.zeros(len(kept), np.int64), self.words.get(of)
        values = self.values(of, column.filter(pl.Series(kept)))
        coded[kept] = values.to_numpy() if words is None else words.codes(values)
        return coded

    def _steps(self) -> list[ScheduledUpdate]:
        lags = {name: one.window // _US for name, one in behaviours(self.spec).items()}
        found: dict[tuple[str | None, int | None], ScheduledUpdate] = {}
        for task in [*(c.task for c in self.counters), *(of.task for of in self.tracks)]:
            found[task, None] = ScheduledUpdate(task, None, 0 if task is None else lags[task])
        for counter in self.counters:
            if counter.window is not None and counter.make != "since":
                found[counter.task, counter.window] = ScheduledUpdate(
                    counter.task, counter.window, counter.lag + counter.window
                )
        return list(found.values())


class StringCodes:
    """A dictionary of text values, so that every history holds numbers."""

    def __init__(self) -> None:
        """An empty dictionary."""
        self._code_of: dict[str, int] = {}
        self._words: list[str] = []

    def codes(self, words: pa.Array) -> np.ndarray:
        """The codes of text values [n]; new values get new codes."""
        coded = words.dictionary_encode()
        known = []
        for word in coded.dictionary.to_pylist():
            known.append(self._code_of.setdefault(word, len(self._words)))
            if known[-1] == len(self._words):
                self._words.append(word)
        return np.array(known, np.int64)[coded.indices.to_numpy()]

    def of(self, codes: np.ndarray) -> pa.Array:
        """The text values of some codes."""
        return pa.array([self._words[code] for code in codes.tolist()], pa.string())


def _read(step: ScheduledUpdate, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The labels that a step reads [n]; 1 for impressions."""
    return np.ones(len(arrays["time"]), np.int8) if step.task is None else arrays[_label(step.task)]


def _label(task: str) -> str:
    return f"label {task}"


def _row(group: int) -> str:
    return f"row {group}"


def _who(track: int) -> str:
    return f"who {track}"


def _what(track: int) -> str:
    return f"what {track}"
