"""Drawn logs replayed against a store: fed as they would arrive, and asked at the moments of their requests."""

from __future__ import annotations

from dataclasses import dataclass

from features.online import Online
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
    """The requests of a log up to its end, in the order of their moments: later ones see what nobody collected."""
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


def answer(store: Online, question: Question) -> dict:
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


def feed(store: Online, one: Drawn, low: int, high: int) -> None:
    """Give a store what the log has between two moments: impressions, then events."""
    rows = [row for row in one.rows if row["item"] is not None and low <= row["time"] < high]
    if rows:
        store.feed(one.frame(rows, one.kinds).collect())
    for name, log in one.events.items():
        events = [event for event in log.rows if low <= event["time"] < high]
        if events:
            store.happened(name, one.frame(events, EVENT).collect())


def differences(made: dict, expected: dict) -> list[str]:
    """Every value of two rows that is not the same, NaN and a missing one told apart."""
    pairs = [("context", made["context"], expected["context"])]
    pairs += [
        (f"candidates[{i}]", *two) for i, two in enumerate(zip(made["candidates"], expected["candidates"], strict=True))
    ]
    return [
        f"{side}.{name}: {one[name]!r} is not {other[name]!r}"
        for side, one, other in pairs
        for name in one.keys() | other.keys()
        if repr(one[name]) != repr(other[name])
    ]
