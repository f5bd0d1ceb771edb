"""Slow, obvious twin of what is made of logs before features: impressions, events, requests, labels, by loops.

Moments are microseconds since 1970. A row is a dict, column -> value, and None is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rec.spec import Event, Spec, Task
from rec.spec.features import Ids, Number, keys_of, matching_of
from rec.spec.tasks import in_order
from tests.reference.values import MISSING

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Says:
    """What the SQL of a label means: the columns it reads, and its value for a row (None: nobody knows)."""

    columns: tuple[str, ...]
    of: Callable[[Mapping], float | None]


@dataclass(frozen=True)
class EventRows:
    """A log of events, its columns called as the impressions' are; `within` in microseconds."""

    rows: Sequence[dict]
    values: tuple[str, ...] = ()
    within: int | None = None
    by_request: bool = False


@dataclass
class Shown:
    """An impression: its columns, its timestamp, its place in the logs, and what came of it."""

    columns: dict
    t: int
    place: int
    label: dict = field(default_factory=dict)


@dataclass
class Request:
    """Impressions shown together, in order; `time` is the timestamp of the first."""

    id: str | None
    user: object
    time: int
    shown: list[Shown]


def us(duration: timedelta) -> int:
    """A duration in microseconds."""
    return duration // timedelta(microseconds=1)


def behaviours(spec: Spec) -> dict[str, Task | Event]:
    """What has a label: tasks, parents first, and events."""
    return {**{name: spec.tasks[name] for name in in_order(spec.tasks)}, **spec.events}


def times_of(behaviour: Task | Event, says: Mapping[str, Says]) -> list[str]:
    """The columns that say when its event happened: as the spec says, or by the names of the label's columns."""
    if behaviour.time is not None:
        return [behaviour.time] if behaviour.time else []
    return [f"{column}_time" for column in says[behaviour.label].columns]


def column_of(spec: Spec, name: str, feature) -> str:
    """The column a feature reads."""
    if isinstance(feature, Ids) and feature.make == "history":
        return feature.column or spec.keys.item
    return feature.column or name


def read_columns(spec: Spec, says: Mapping[str, Says]) -> set[str]:
    """Every column that the spec names, and the timestamp `x_time` beside every column `x` of a label."""
    keys = spec.keys
    columns = {keys.user, keys.item, keys.time, keys.request, keys.session, spec.split.column}
    for _, features in spec.sides():
        for name, feature in features.items():
            make = getattr(feature, "make", "column")
            if isinstance(feature, Number) and make in ("count", "rate", "since", "since_first", "expected", "coec"):
                columns |= {*keys_of(feature), *matching_of(feature)}
            elif make in ("mean", "sum", "last"):
                columns |= {*keys_of(feature), *matching_of(feature), feature.column}
            elif make in ("column", "age", "history", "tokens"):
                columns.add(column_of(spec, name, feature))
    for behaviour in behaviours(spec).values():
        columns |= {*says[behaviour.label].columns, *times_of(behaviour, says)}
    return columns - {None}


def impressions(spec: Spec, rows: Sequence[dict], says: Mapping[str, Says]) -> list[Shown]:
    """The usable rows of the logs, with None for text that means no value; of rows alike in what is read, the first."""
    keys, columns = spec.keys, sorted(read_columns(spec, says))
    all_requests, seen = [], []
    for place, written in enumerate(rows):
        row = {column: None if value in MISSING else value for column, value in written.items()}
        needed = [key for key in (keys.item, keys.time, keys.request) if key is not None]
        if any(row[key] is None for key in needed):
            continue
        alike = [row.get(column) for column in columns]
        # two rows of nobody, in no request that they name, may be of two people
        named = row.get(keys.user) is not None or keys.request is not None
        if keys.time is not None and spec.logs.duplicates == "drop" and named and alike in seen:
            continue
        seen.append(alike)
        all_requests.append(Shown(dict(row), 0 if keys.time is None else row[keys.time], place))
    return all_requests


def attribute(spec: Spec, shown: Sequence[Shown], name: str, log: EventRows) -> None:
    """Give every event to the latest impression of its user and item at or before it, of its own request if it can."""
    user, item, time, request = spec.keys.user, spec.keys.item, spec.keys.time, spec.keys.request
    for impression in shown:
        impression.columns |= {name: 0, f"{name}_time": None, f"{name}_count": 0, **dict.fromkeys(log.values)}
    read = [user, item, time, *([request] if log.by_request else []), *log.values]
    seen = []
    for event in sorted((e for e in log.rows if e[time] is not None), key=lambda e: e[time]):
        alike = [event[column] for column in read]
        if spec.logs.duplicates == "drop" and alike in seen:
            continue
        seen.append(alike)
        touched = []
        for impression in shown:
            same = (
                event[user] is not None
                and impression.columns[user] == event[user]
                and impression.columns[item] == event[item]
            )
            if (
                same
                and impression.t <= event[time]
                and (log.within is None or event[time] - impression.t <= log.within)
            ):
                touched.append(impression)
        if log.by_request and event[request] is not None:
            touched = [impression for impression in touched if impression.columns[request] == event[request]] or touched
        if not touched:
            continue
        latest = max(touched, key=lambda impression: (impression.t, impression.place))
        if latest.columns[f"{name}_count"] == 0:
            latest.columns |= {name: 1, f"{name}_time": event[time], **{value: event[value] for value in log.values}}
        latest.columns[f"{name}_count"] += 1


def end_of(spec: Spec, shown: Sequence[Shown], events: Mapping[str, EventRows], says: Mapping[str, Says]) -> int:
    """Until when outcomes were collected: as the spec says, or the last timestamp in any log."""
    if spec.logs.end is not None:
        return us(spec.logs.end - EPOCH)
    moments = [impression.t for impression in shown]
    moments += [e[spec.keys.time] for log in events.values() for e in log.rows if e[spec.keys.time] is not None]
    for behaviour in behaviours(spec).values():
        for time in times_of(behaviour, says):
            moments += [impression.columns[time] for impression in shown if impression.columns.get(time) is not None]
    return max(moments)


def label(spec: Spec, shown: Sequence[Shown], end: int, says: Mapping[str, Says]) -> None:
    """The label of every behaviour of every impression: 1, 0 or -1, or for a quantity a number or None."""
    for name, behaviour in behaviours(spec).items():
        own, given = says[behaviour.label], getattr(behaviour, "given", None)
        for impression in shown:
            impression.label[name] = own.of(impression.columns)
            if (
                quantity(behaviour)
                and impression.label[name] is None
                and given is not None
                and impression.label[given] == 0
            ):
                impression.label[name] = 0  # there is nothing of what cannot happen
    for name, behaviour in behaviours(spec).items():
        window, own = us(behaviour.window), says[behaviour.label]
        for impression in shown:
            moments = [impression.columns.get(time) for time in times_of(behaviour, says)]
            if (
                any(time is not None and time > impression.t + window for time in moments)
                and impression.label[name] != 0
            ):
                impression.label[name] = 0  # it came too late
            if window > 0 and spec.keys.time is not None and impression.t + window > end:
                impression.label[name] = None  # who knows
            if not quantity(behaviour):
                impression.label[name] = -1 if impression.label[name] is None else int(impression.label[name])


def quantity(behaviour: Task | Event) -> bool:
    """Whether its label says how much there was of it."""
    return isinstance(behaviour, Task) and behaviour.predict != "event"


def requests(spec: Spec, shown: Sequence[Shown]) -> list[Request]:
    """Impressions by request id; else by user, pause and context; else each by itself."""
    keys = spec.keys
    all_requests: list[Request] = []
    if keys.request is not None:
        for impression in sorted(shown, key=lambda impression: (impression.t, impression.place)):
            name, user = str(impression.columns[keys.request]), impression.columns.get(keys.user)
            own = [request for request in all_requests if request.id == name]
            if own:
                own[0].shown.append(impression)
            else:
                all_requests.append(Request(name, user, impression.t, [impression]))
    elif keys.user is None or keys.time is None:
        all_requests = [
            Request(str(impression.place), impression.columns.get(keys.user), impression.t, [impression])
            for impression in shown
        ]
    else:
        for impression in sorted(shown, key=lambda impression: (impression.t, impression.place)):
            user = impression.columns[keys.user]
            own = [request for request in all_requests if user is not None and request.user == user]
            if own and follows(spec, own[-1].shown[-1], impression):
                own[-1].shown.append(impression)
            else:
                # somebody unknown has requests of one impression each, and nothing they could be called by
                all_requests.append(
                    Request(None if user is None else f"{user}-{len(own)}", user, impression.t, [impression])
                )
    return sorted(all_requests, key=lambda r: (r.user is not None, 0 if r.user is None else r.user, r.time, r.id or ""))


def follows(spec: Spec, before: Shown, impression: Shown) -> bool:
    """Whether an impression belongs to the request of the one before it: no long pause, and the same context."""
    if impression.t - before.t > us(spec.requests.gap):
        return False
    for name, feature in spec.context.items():
        column = getattr(feature, "column", None) or name
        attribute = getattr(feature, "make", "column") in ("column", "age", "tokens") and column != spec.keys.user
        now, then = impression.columns.get(column), before.columns.get(column)
        if attribute and not isinstance(now, list) and now != then:
            return False
    return True


def sessions(spec: Spec, all_requests: Sequence[Request], request: Request) -> tuple[int, float]:
    """How many requests of its session came before a request, and the seconds since the session began."""
    if request.user is None:
        return 0, 0.0
    key = spec.keys.session
    own = [r for r in all_requests if r.user == request.user]
    if key is not None:
        mine = request.shown[0].columns[key]
        times = [r.time for r in own if mine is not None and r.shown[0].columns[key] == mine]
    else:
        began, times = request.time, []
        for time in sorted((r.time for r in own if r.time < request.time), reverse=True):
            if began - time > us(spec.sessions.gap):
                break
            began = time
            times.append(time)
    earlier = [time for time in times if time < request.time]
    return len(earlier), (request.time - min(earlier, default=request.time)) / 1e6
