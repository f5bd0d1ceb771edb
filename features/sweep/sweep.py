"""The core: what is known of every key as a log goes by. The same object is replayed offline and fed online.

    sweep.feed(events)        outcomes of impressions, each of which becomes known a window after it
    sweep.ask(requests)       what was known strictly before each request; the clock goes on to the last of them
    sweep.advance(time)       the clock goes on, and nobody asks

It holds a queue of the events that some counter has still to see, and per key a few numbers. It knows no column, no
file and no label's text: keys are rows of its tables, outcomes are 1, 0 or -1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta

import numpy as np

from features.sweep.event_queue import EventQueue, Merge
from features.sweep.events import Answers, Events, Per, RequestKeys
from features.sweep.histories import Histories
from features.sweep.key_group import KeyGroup
from features.sweep.key_rows import KeyRows
from features.sweep.open_sessions import OpenSessions
from features.sweep.running_base import HOUR, running_bases
from features.sweep.value_totals import value_of
from features.transforms.counters import SHARE, base_names, counters, numbers_of
from rec.spec import Ids, Number, Spec
from rec.spec.features import MOMENTS
from rec.spec.tasks import behaviours

Mapper = Callable[[Callable[[Per], object], Iterable[Per]], Iterable[object]]

REQUEST = "request"  # the array of the requests that events are of, where it matters
_US = timedelta(microseconds=1)
_START = -(1 << 60)  # a timestamp before all others
_SESSION = ("session_requests", "session_seconds")


class Sweep:
    """Counters, histories, base rates and sessions of a spec, as of a clock."""

    def __init__(
        self,
        spec: Spec,
        *,
        clock: int = _START,
        kept: int = 0,
        only: Collection[Per] | None = None,
        histories: bool = True,
    ) -> None:
        """Nothing is known; events stay queued for at least `kept` microseconds, in which they may be corrected.

        `only` are the keys that are counted by, where others count the rest; `histories` says whether it has those.
        """
        self.clock, self._kept = clock, kept
        self.forgotten = 0  # events that were dropped from the queue
        self.counters = counters(spec)
        lags = {name: behaviour.window // _US for name, behaviour in behaviours(spec).items()}
        lags |= {counter.task: counter.lag for counter in self.counters if counter.task is not None}
        self._lags = lags
        self.histories_of = {
            name: feature
            for name, feature in spec.context.items()
            if histories and isinstance(feature, Ids) and feature.make in ("history", "gaps")
        }
        tasks_remembered = [
            f.task for f in spec.context.values() if isinstance(f, Ids) and f.make in ("history", "gaps")
        ]
        read = [*(c.task for c in self.counters), *tasks_remembered]
        self.tasks = list(dict.fromkeys(task for task in read if task is not None))
        every = dict.fromkeys(counter.per for counter in self.counters)
        self.groups = {per: KeyGroup(per, self.counters, self.tasks) for per in every if only is None or per in only}
        self.numbers = numbers_of(self.counters, self.groups)
        self.expects = SHARE in self.numbers  # clicks: events have a share, and say which request they are of
        self.base_names = base_names(self.counters, self.tasks)
        self.bases = running_bases(self.counters, self.tasks, lags)
        self.people = KeyRows()
        self.histories = {
            name: Histories(
                -1 if f.task is None else self.tasks.index(f.task), 0 if f.task is None else lags[f.task], f.last
            )
            for name, f in self.histories_of.items()
        }
        self.sessions = {
            name: f.make for name, f in spec.context.items() if isinstance(f, Number) and f.make in _SESSION
        }
        self.open_sessions = OpenSessions(None if spec.keys.session is not None else spec.sessions.gap // _US)
        self.queue = EventQueue(
            keys=[*map(key_of, self.groups), *map(_who, self.histories)],
            values=[*map(_what, self.histories), *map(value_of, self.numbers), *([REQUEST] if self.expects else [])],
            labels=len(self.tasks),
        )

    @property
    def horizon(self) -> int:
        """How long an event stays in the queue, in microseconds."""
        delays = [delay for group in self.groups.values() for delay in group.delays]
        delays += [history.delay for history in self.histories.values()]
        return max([self._kept, *delays, *(base.delay for base in self.bases.values())])

    def rows_of_people(self, code: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """The rows of users by their hashes [n] int32, made where there was none; -1 where one is not `known`."""
        rows = self.people.add(code, known)
        for history in self.histories.values():
            history.room(len(self.people))
        return rows

    def feed(self, events: Events) -> Merge:
        """Queue events; where they went. What became known before the clock enters at once, the rest as it goes on."""
        wide, rows = self.coded(events)
        merge = self.queue.add(wide, rows, events.labels)
        if len(events.time) and events.time.min() < self.clock:
            self._count(events.time, wide, rows, events.labels, enters=True)
        return merge

    def feed_one(self, wide: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> bool:
        """Queue one event, columns in the order of the queue's; False where it is earlier than the clock or the last.

        Such an event is for `feed`, which takes microseconds per array instead of two in all.
        """
        return bool(wide[0] >= self.clock) and self.queue.add_one(wide, rows, labels)

    def correct(self, places: np.ndarray, events: Events) -> None:
        """Events that are queued at `places` [n], strictly ascending, have other outcomes or values than was known."""
        wide, rows = self.coded(events)
        before = {name: self.queue.of(name)[places] for name in wide}, {n: self.queue.of(n)[places] for n in rows}
        labels = self.queue.labels[:, places]
        changed = np.any(labels != events.labels, axis=0)
        for old, new in zip(before, (wide, rows), strict=True):
            for name, values in new.items():
                changed |= old[name] != values
        if not changed.any():
            return
        for arrays, outcomes, enters in ((before, labels, False), ((wide, rows), events.labels, True)):
            chosen = [{name: values[changed] for name, values in part.items()} for part in arrays]
            self._count(events.time[changed], chosen[0], chosen[1], outcomes[:, changed], enters=enters)
        for name, values in {**wide, **rows}.items():
            self.queue.of(name)[places] = values
        self.queue.labels[:, places] = events.labels

    def relabel(self, labels: Mapping[str, np.ndarray]) -> None:
        """Outcomes of all queued events [E] by behaviour, for those that are not known at the clock yet."""
        for place, task in enumerate(self.tasks):
            coming = self.queue.time + self._lags[task] >= self.clock
            self.queue.labels[place, coming] = labels[task][coming]

    def begin(self, time: np.ndarray, rows: np.ndarray) -> None:
        """Requests that begin at some timestamps [B], of sessions by rows; those before the clock count at once."""
        self.open_sessions.feed(time, rows)
        self.open_sessions.ask(np.array([self.clock]), np.full(1, -1, np.int32))

    def ask(self, requests: RequestKeys, *, mapped: Mapper = map) -> Answers:
        """What was known strictly before each request; `mapped` may work on several key groups at a time."""
        time, clock = requests.time, self.clock
        if not len(time):
            return self._nothing()
        assert time[0] >= clock, "the clock does not go back"
        bases = self._bases(time) if requests.bases is None else requests.bases

        def of_group(per: Per) -> dict[str, dict[str, np.ndarray]]:
            group, nobody = self.groups[per], np.zeros(0, np.int32)
            return group.ask(
                self.queue,
                key_of(per),
                clock=clock,
                time=time,
                bases=bases,
                context=requests.context.get(per, nobody),
                candidates=requests.candidates.get(per, nobody),
                offsets=requests.offsets,
            )

        answers = list(mapped(of_group, self.groups))
        columns: dict[str, dict[str, np.ndarray]] = {"context": {}, "candidates": {}}
        for answer in answers:
            for side, values in answer.items():  # type: ignore[attr-defined]  # a mapper says nothing of what it maps
                columns[side] |= values
        histories = {}
        for name, history in self.histories.items():
            assert requests.people is not None, "a history is of users"
            names = _who(name), _what(name)
            histories[name] = history.ask(self.queue, names, clock=clock, time=time, people=requests.people)
        columns["context"] |= self._session_figures(requests)
        self._go_on(int(time[-1]))
        return Answers(columns["context"], columns["candidates"], histories, bases)

    def advance(self, time: int) -> None:
        """The clock goes on to a timestamp, no earlier than it is."""
        clock, moments = self.clock, np.array([time])
        for base in self.bases.values():
            base.ask(self.queue, clock=clock, time=moments)
        for per, group in self.groups.items():
            group.advance(self.queue, key_of(per), clock, time)
        for name, history in self.histories.items():
            history.advance(self.queue, (_who(name), _what(name)), clock, time)
        self.open_sessions.ask(moments, np.full(1, -1, np.int32))
        self._go_on(time)

    def base_rates(self) -> dict[str, float]:
        """The base rates by their names, as of the clock."""
        clock = np.array([self.clock])
        return {name: float(base.ask(self.queue, clock=self.clock, time=clock)[0]) for name, base in self.bases.items()}

    def due(self) -> int:
        """The next timestamp after which something else is known than at the clock."""
        time, moments = self.queue.time, [1 << 60]
        delays = {delay for group in self.groups.values() for delay in group.delays}
        delays |= {state.delay for state in (*self.histories.values(), *self.bases.values())}
        for delay in delays:
            place = self.queue.before(self.clock - delay)
            moments += [int(time[place]) + delay] if place < len(time) else []
        moments += self.open_sessions.waiting_time[:1].tolist()
        return min([*moments, *([(self.clock // HOUR + 1) * HOUR - 1] if self.bases else [])])

    def coded(self, events: Events) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Events as the queue's columns of values, and of rows."""
        wide = {"time": events.time, "place": events.place}
        wide |= {value_of(column): events.numbers[column] for column in self.numbers}
        if self.expects:
            wide[REQUEST] = np.zeros(len(events.time), np.int64) if events.request is None else events.request
        rows = {key_of(per): events.keys[per] for per in self.groups}
        for name, (value, known) in events.values.items():
            assert events.people is not None, "a history is of users"
            rows[_who(name)] = np.where(known, events.people, np.int32(-1))
            wide[_what(name)] = value
        return wide, rows

    def _count(
        self,
        time: np.ndarray,
        wide: Mapping[str, np.ndarray],
        rows: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        enters: bool,
    ) -> None:
        """Events enter what the clock has passed already, or leave it."""
        never = np.full(len(time), -1, np.int8)
        for per, group in self.groups.items():
            for step in group.steps:
                passed = time + step.delay < self.clock
                label = np.ones(len(time), np.int8) if step.task is None else labels[self.tasks.index(step.task)]
                old, new = (never, label) if enters else (label, never)
                group.change(step, rows[key_of(per)][passed], old=old[passed], new=new[passed], time=time[passed])
            for values in group.values:
                values.change(wide, rows[key_of(per)], labels, clock=self.clock, enters=enters)
        for base in self.bases.values():
            passed = time + base.delay < self.clock
            share = wide[value_of(SHARE)][passed] if self.expects else None
            base.change(time[passed], labels[base.task][passed], share, 1 if enters else -1)
        for name, history in self.histories.items():
            did = (time + history.delay < self.clock) & (rows[_who(name)] >= 0)
            did &= labels[history.task] == 1 if history.task >= 0 else True
            act = history.insert if enters else history.remove
            for place in np.flatnonzero(did).tolist():
                act(int(rows[_who(name)][place]), int(time[place]), int(wide[_what(name)][place]))

    def _go_on(self, time: int) -> None:
        self.clock = time
        self.forgotten += self.queue.forget(time - self.horizon)

    def _session_figures(self, requests: RequestKeys) -> dict[str, np.ndarray]:
        if not self.sessions:
            return {}
        assert requests.sessions is not None, "a session is somebody's"
        self.open_sessions.feed(requests.time, requests.sessions)
        earlier, passed = self.open_sessions.ask(requests.time, requests.sessions)
        figures = {_SESSION[0]: earlier.astype(float), _SESSION[1]: passed / 1e6}
        return {name: figures[make] for name, make in self.sessions.items()}

    def _nothing(self) -> Answers:
        columns: dict[str, dict[str, np.ndarray]] = {"context": {}, "candidates": {}}
        for counter in self.counters:
            kind = np.int64 if counter.make in MOMENTS else np.float32
            columns[counter.side][counter.name] = np.zeros(0, kind)
        columns["context"] |= {name: np.zeros(0) for name in self.sessions}
        nothing = np.zeros(0, np.int64)
        histories = dict.fromkeys(self.histories, (nothing, nothing, np.zeros(1, np.int64)))
        return Answers(columns["context"], columns["candidates"], histories, self._bases(nothing))

    def _bases(self, time: np.ndarray) -> np.ndarray:
        """The base rates as of requests at `time` [B]: [bases, B], NaN for what has none."""
        bases = np.full((max(1, len(self.base_names)), len(time)), np.nan)
        for name, base in self.bases.items():
            bases[self.base_names.index(name)] = base.ask(self.queue, clock=self.clock, time=time)
        return bases


def key_of(per: Per) -> str:
    """The name of the array of a key's rows in the queue."""
    return "key " + " ".join(per)


def _who(history: str) -> str:
    return f"who {history}"


def _what(history: str) -> str:
    return f"what {history}"
