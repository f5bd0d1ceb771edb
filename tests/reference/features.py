"""Slow, obvious twin of features/: logs to session tables by loops over impressions, straight from the rules.

What is known when: a behaviour with window w of an impression at t becomes known at t + w, and a request at T sees what
was known strictly before T. Moments are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rec.spec import Spec
from rec.spec.features import Id, Ids, Number, Vector, keys_of, matching_of
from tests.reference import logs
from tests.reference.logs import EPOCH, EventRows, Request, Says, Shown, us
from tests.reference.numbers import bucket, decayed, expected, measure, of_values, single
from tests.reference.values import words

HOUR = 3_600_000_000
SPLITS = ("train", "validation", "test")


@dataclass
class World:
    """Everything that was ever shown, and in which requests."""

    spec: Spec
    shown: list[Shown]
    requests: list[Request]


def session_table(
    spec: Spec,
    impressions: Sequence[dict],
    *,
    says: Mapping[str, Says],
    users: Mapping[object, Sequence[dict]] | None = None,
    items: Mapping[object, Sequence[dict]] | None = None,
    events: Mapping[str, EventRows] | None = None,
) -> dict[str, list[dict]]:
    """The requests of every split: `{request_id, time, context: {...}, candidates: [{...}]}`, labels among candidates.

    `users` and `items` give for a key its rows, each with the timestamp "since" from which it holds, or without.
    """
    shown = logs.impressions(spec, impressions, says)
    for name, log in (events or {}).items():
        logs.attribute(spec, shown, name, log)
    logs.label(spec, shown, logs.end_of(spec, shown, events or {}, says), says)
    all_requests = logs.requests(spec, shown)
    for request in all_requests:
        for impression in request.shown:
            for side, table, key in (("users", users, spec.keys.user), ("items", items, spec.keys.item)):
                if table is not None and key is not None:
                    join(impression, as_of(table.get(impression.columns[key], ()), request.time), side)
    world = World(spec, shown, all_requests)
    table: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for request in all_requests:
        table[split_of(spec, request)].append(row(world, request))
    return table


def join(impression: Shown, row: Mapping, side: str) -> None:
    """Add what a side table says to an impression's columns, of which it has the last word."""
    for column, value in row.items():
        impression.columns.setdefault(column, value)
        impression.columns[f"{side}.{column}"] = value


def as_of(rows: Sequence[dict], time: int) -> dict:
    """The latest row that held strictly before a timestamp; a row without "since" always did."""
    held = [row for row in rows if row.get("since") is None or row["since"] < time]
    return {} if not held else max(held, key=lambda row: row.get("since") or 0)


def split_of(spec: Spec, request: Request) -> str:
    """Train, validation or test: by the request's moment, or as a column says."""
    if spec.split.column is not None:
        return request.shown[0].columns[spec.split.column]
    if request.time >= us(spec.split.test - EPOCH):
        return "test"
    return "validation" if request.time >= us(spec.split.validation - EPOCH) else "train"


def row(world: World, request: Request) -> dict:
    """One row of the session table."""
    spec, first = world.spec, request.shown[0]
    context = {name: value(world, name, f, request, first) for name, f in spec.context.items() if stored(f)}
    candidates = []
    for impression in request.shown:
        candidate = {
            name: value(world, name, f, request, impression) for name, f in spec.candidates.items() if stored(f)
        }
        label = {
            name: measure(impression.label[name]) if logs.quantity(task) else impression.label[name]
            for name, task in spec.tasks.items()
        }
        candidates.append({**candidate, **label})
    return {"request_id": request.id, "time": request.time, "context": context, "candidates": candidates}


def stored(feature) -> bool:
    """Whether a feature is in the table: the clock and crosses are worked out by whoever reads it."""
    return not (isinstance(feature, Id) and feature.make != "column")


def value(world: World, name: str, feature, request: Request, impression: Shown):
    """What the table holds for a feature of an impression, or of a request (`one` is its first impression)."""
    counted = {"count": count, "rate": rate, "since": since, "since_first": since_first}
    make = getattr(feature, "make", "column")
    if make == "expected":
        return expectation(world, feature, request, impression)
    if make == "coec":
        return over_expected(world, feature, request, impression)
    if make in ("mean", "sum", "last"):
        return valued(world, feature, request, impression)
    if make in counted:
        return counted[make](world, feature, request, impression)
    if make == "history":
        return history(world, name, feature, request)
    if make == "gaps":
        return gaps(world, feature, request)
    if make in ("session_requests", "session_seconds"):
        requests, seconds = logs.sessions(world.spec, world.requests, request)
        return single(requests if make == "session_requests" else seconds)
    return attribute(feature, impression.columns.get(feature.column or name))


def attribute(feature, value):
    """What stands in a column, as the feature's kind holds it; a list of nothing is empty."""
    if isinstance(feature, Ids):
        listed = [] if value is None else value
        return words(listed) if feature.make == "tokens" and value is not None else list(listed)
    if value is None:
        return None
    if isinstance(feature, Vector):
        return [single(x) for x in value]
    return single(value) if isinstance(feature, Number) and feature.make == "column" else value


def seen_before(known: int, time: int) -> bool:
    """Whether what became known at `known` is known to a request at `moment`: a tie is broken against us."""
    return known < time


def visible(world: World, behaviour: str | None, time: int) -> list[Shown]:
    """Impressions whose outcome is known just before a timestamp, in the order it became known; None is being shown."""
    window = 0 if behaviour is None else us(logs.behaviours(world.spec)[behaviour].window)
    known = [impression for impression in world.shown if behaviour is None or impression.label[behaviour] != -1]
    known = [impression for impression in known if seen_before(impression.t + window, time)]
    return sorted(known, key=lambda impression: (impression.t + window, impression.place))


def happened(impression: Shown, behaviour: str | None) -> bool:
    """Whether a behaviour took place; being shown always did."""
    return behaviour is None or impression.label[behaviour] == 1


def inside(world: World, seen: Sequence[Shown], feature: Number, time: int) -> list[Shown]:
    """Those of some visible impressions that became known in the window before a timestamp."""
    if feature.window is None:
        return list(seen)
    lag = 0 if feature.task is None else us(logs.behaviours(world.spec)[feature.task].window)
    return [impression for impression in seen if impression.t + lag >= time - us(feature.window)]


def key(world: World, feature: Number, impression: Shown, *, past: bool = False) -> tuple | None:
    """The value, or values together, whose past is looked at, or whose a past one is; None where one is missing."""
    columns = (matching_of(feature) if past else keys_of(feature)) or (world.spec.keys.user,)
    values = tuple(impression.columns.get(column) for column in columns)
    return None if None in values else values


def past_of(world: World, feature: Number, request: Request, impression: Shown) -> list[Shown] | None:
    """The visible impressions with the same key; None where it is missing."""
    mine = key(world, feature, impression)
    if mine is None:
        return None
    return [past for past in visible(world, feature.task, request.time) if key(world, feature, past, past=True) == mine]


def count(world: World, feature: Number, request: Request, impression: Shown) -> float | None:
    """How often it happened; without a task, how often it was shown."""
    past = past_of(world, feature, request, impression)
    if past is None:
        return None
    if feature.half_life is not None:
        clicks = [known_at(world, feature, p) for p in past if happened(p, feature.task)]
        return single(decayed(clicks, us(feature.half_life), request.time))
    return float(sum(happened(p, feature.task) for p in inside(world, past, feature, request.time)))


def known_at(world: World, feature: Number, impression: Shown) -> int:
    """When it is known what a rate counts of an impression: with the later of its two events."""
    windows = [us(logs.behaviours(world.spec)[name].window) for name in (feature.task, feature.given) if name]
    return impression.t + max(windows, default=0)


def of_rate(world: World, feature: Number, time: int) -> list[Shown]:
    """What a rate is of just before a timestamp: observed impressions, where the given event happened."""
    known = [p for p in world.shown if p.label[feature.task] != -1 and known_at(world, feature, p) < time]
    return [p for p in known if feature.given is None or happened(p, feature.given)]


def rate(world: World, feature: Number, request: Request, impression: Shown) -> float | None:
    """Events per observed impression, drawn to the rate of all as of the last whole hour; None if that is of nobody."""
    past = past_of(world, feature, request, impression)
    if past is None:
        return None
    everybody = of_rate(world, feature, request.time - request.time % HOUR)
    if not everybody:
        return None
    base = (sum(happened(p, feature.task) for p in everybody) + 1) / (len(everybody) + 2)
    mine = key(world, feature, impression)
    known = [p for p in of_rate(world, feature, request.time) if key(world, feature, p, past=True) == mine]
    own = [
        p for p in known if feature.window is None or known_at(world, feature, p) >= request.time - us(feature.window)
    ]
    h, n = sum(happened(p, feature.task) for p in own), len(own)
    if feature.half_life is not None:
        clicks = [p for p in own if happened(p, feature.task)]
        times = [[known_at(world, feature, p) for p in of] for of in (clicks, own)]
        h, n = (decayed(of, us(feature.half_life), request.time) for of in times)
    return single((h + feature.prior * base) / (n + feature.prior))


def size(world: World, impression: Shown) -> int:
    """How many impressions its request had by its own timestamp."""
    (own,) = [request.shown for request in world.requests if any(p is impression for p in request.shown)]
    return sum(p.t <= impression.t for p in own)


def expectation(world: World, feature: Number, request: Request, impression: Shown) -> float | None:
    """The sum of 1/size of the requests in which the key was shown."""
    past = past_of(world, feature, request, impression)
    if past is None:
        return None
    return single(expected([size(world, p) for p in inside(world, past, feature, request.time)]))


def over_expected(world: World, feature: Number, request: Request, impression: Shown) -> float | None:
    """Clicks per expected one, of observed impressions, drawn to that of all as of the last whole hour."""
    past = past_of(world, feature, request, impression)
    everybody = visible(world, feature.task, request.time - request.time % HOUR)
    if past is None or not everybody:
        return None
    groups = everybody, inside(world, past, feature, request.time)
    sums = [(sum(happened(p, feature.task) for p in of), expected([size(world, p) for p in of])) for of in groups]
    (all_clicks, all_expected), (clicks, own_expected) = sums
    base = (all_clicks + 1) / (all_expected + 1)
    return single((clicks + feature.prior * base) / (own_expected + feature.prior))


def valued(world: World, feature: Number, request: Request, impression: Shown) -> float | None:
    """The mean, the sum or the last of a column's values where it happened, each to 2^-24; of no value, a sum is 0."""
    past = past_of(world, feature, request, impression)
    if past is None:
        return None
    own = [p for p in inside(world, past, feature, request.time) if happened(p, feature.task)]
    return of_values([p.columns.get(feature.column) for p in own], feature.make)


def since(world: World, feature: Number, request: Request, impression: Shown) -> int | None:
    """The timestamp of the last impression of which it is known that it happened."""
    past = [p.t for p in past_of(world, feature, request, impression) or [] if happened(p, feature.task)]
    return max(past, default=None)


def since_first(world: World, feature: Number, request: Request, impression: Shown) -> int | None:
    """The timestamp of the first impression of which it is known that it happened."""
    past = [p.t for p in past_of(world, feature, request, impression) or [] if happened(p, feature.task)]
    return min(past, default=None)


def own_past(world: World, feature: Ids, request: Request) -> list[Shown]:
    """What is known to have happened to the request's user, oldest first."""
    user = world.spec.keys.user
    if request.user is None:
        return []
    past = visible(world, feature.task, request.time)
    return [p for p in past if p.columns[user] == request.user and happened(p, feature.task)]


def history(world: World, name: str, feature: Ids, request: Request) -> list:
    """The last known values of a column among what happened to the user."""
    column = logs.column_of(world.spec, name, feature)
    values = [p.columns.get(column) for p in own_past(world, feature, request)]
    values = [v for v in values if v is not None][-feature.last :]
    return [bucket(v) for v in values] if feature.buckets else values


def gaps(world: World, feature: Ids, request: Request) -> list[int]:
    """How long ago the last of what happened to the user was shown, in whole seconds, as buckets."""
    past = own_past(world, feature, request)[-feature.last :]
    return [bucket((request.time - p.t) // 1_000_000) for p in past]
