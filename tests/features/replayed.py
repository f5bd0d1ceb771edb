"""Drawn logs replayed against a store: fed as they would arrive, and asked at the timestamps of their requests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from features.store.store import FeatureStore
from rec.spec import Spec
from tests.features.drawn import EVENT, SAYS, Drawn
from tests.features.test_twins import counted
from tests.reference import features as slow
from tests.reference import logs

SENT = {
    "context": ("city", "query", "sid"),
    "candidates": ("place", "city", "tags", "moved_time"),
}  # what a caller knows of a request


@dataclass(frozen=True)
class Question:
    """A request, and the row that the twin has of it, without labels."""

    asked: logs.Request
    row: dict


def questions(one: Drawn) -> list[Question]:
    """The requests of a log up to its end, in the order of their timestamps: later ones see what nobody collected."""
    spec, events = one.spec, one.events
    shown = logs.impressions(spec, one.rows, SAYS)
    for name, log in events.items():
        logs.attribute(spec, shown, name, log)
    end = logs.end_of(spec, shown, events, SAYS)
    logs.label(spec, shown, end, SAYS)
    made = logs.requests(spec, shown)
    for request in made:
        for impression in request.shown:
            for side, table in (("user", one.users), ("item", one.items)):
                if table is not None:
                    slow.join(impression, slow.as_of(table.get(impression.columns[side], ()), request.time), f"{side}s")
    world = slow.World(spec, shown, made)
    asked = sorted((request for request in made if request.time <= end), key=lambda request: request.time)
    return [Question(request, _unlabelled(spec, slow.row(world, request))) for request in asked]


def _unlabelled(spec: Spec, row: dict) -> dict:
    kept = [{name: value for name, value in one.items() if name not in spec.tasks} for one in row["candidates"]]
    return {"time": row["time"], "context": row["context"], "candidates": kept}


def answer(store: FeatureStore, question: Question) -> dict:
    """What a store says of a request."""
    rows = [one.columns for one in question.asked.shown]
    known = {side: [name for name in names if name in store.like.columns] for side, names in SENT.items()}
    made = store.hydrate(
        rows[0]["user"],
        [row["item"] for row in rows],
        question.asked.time,
        context={name: rows[0][name] for name in known["context"]},
        candidates={name: [row[name] for row in rows] for name in known["candidates"]},
    )
    (row,) = made.to_pylist()
    return {name: counted(row[name]) for name in ("time", "context", "candidates")}


def feed(store: FeatureStore, one: Drawn, low: int, high: int, *, without: dict | None = None) -> None:
    """Give a store what the log has between two moments: impressions, all but those like `without`, then events."""
    rows = [row for row in one.rows if row["item"] is not None and low <= row["time"] < high and row != without]
    if rows:
        store.feed(one.frame(rows, one.kinds).collect())
    for name, log in one.events.items():
        events = [event for event in log.rows if low <= event["time"] < high]
        if events:
            store.happened(name, one.frame(events, EVENT).collect())


def cut_at(one: Drawn, cut: int) -> Drawn:
    """The log up to a timestamp."""
    events = {name: replace(log, rows=[e for e in log.rows if e["time"] < cut]) for name, log in one.events.items()}
    return replace(one, rows=[row for row in one.rows if row["time"] < cut], events=events)


def differences(made: dict, expected: dict) -> list[str]:
    """Every value of two rows that is not the same."""
    pairs = [("context", made["context"], expected["context"])]
    rows = zip(made["candidates"], expected["candidates"], strict=True)
    pairs += [(f"candidates[{place}]", *two) for place, two in enumerate(rows)]
    return [
        f"{side}.{name}: {left[name]!r} is not {right[name]!r}"
        for side, left, right in pairs
        for name in left.keys() | right.keys()
        if repr(left[name]) != repr(right[name])
    ]


def before(one: Drawn, late: dict) -> bool:
    """Whether a row is like another, or might have said that a request began earlier than the others say."""
    tables = [row for table in (one.users, one.items) for rows in (table or {}).values() for row in rows]
    matters = {"before", "so_far"} & one.spec.context.keys() or any(row["since"] is not None for row in tables)
    read = sorted(logs.read_columns(one.spec, SAYS))  # a repeat of a row that is long forgotten is another impression
    alike = [row for row in one.rows if [row.get(name) for name in read] == [late.get(name) for name in read]]
    return len(alike) > 1 or bool(matters)
