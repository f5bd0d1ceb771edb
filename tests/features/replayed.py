"""Drawn logs replayed against a store: fed as they would arrive, and asked at the timestamps of their requests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from features.store.sessions import expects
from features.store.store import FeatureStore
from rec.spec import Spec
from tests.features.drawn import EVENT, SAYS, Drawn
from tests.features.test_twins import counted
from tests.reference import features as slow
from tests.reference import logs

SENT = {
    "context": ("city", "query", "sid", "page"),
    "candidates": ("place", "city", "tags", "moved_time"),
}  # what a caller knows of a request


@dataclass(frozen=True)
class Question:
    """A request, and the row that the twin has of it, without labels."""

    request: logs.Request
    row: dict


def questions(drawn_log: Drawn) -> list[Question]:
    """The requests of a log up to its end, in the order of their timestamps: later ones see what nobody collected."""
    spec, events = drawn_log.spec, drawn_log.events
    shown = logs.impressions(spec, drawn_log.rows, SAYS)
    for name, log in events.items():
        logs.attribute(spec, shown, name, log)
    end = logs.end_of(spec, shown, events, SAYS)
    logs.label(spec, shown, end, SAYS)
    requests = logs.requests(spec, shown)
    for request in requests:
        for impression in request.shown:
            for side, table in (("user", drawn_log.users), ("item", drawn_log.items)):
                if table is not None:
                    slow.join(impression, slow.as_of(table.get(impression.columns[side], ()), request.time), f"{side}s")
    world = slow.World(spec, shown, requests)
    known = sorted((request for request in requests if request.time <= end), key=lambda request: request.time)
    return [Question(request, _unlabelled(spec, slow.row(world, request))) for request in known]


def _unlabelled(spec: Spec, row: dict) -> dict:
    candidates = [
        {name: value for name, value in candidate.items() if name not in spec.tasks} for candidate in row["candidates"]
    ]
    return {"time": row["time"], "context": row["context"], "candidates": candidates}


def answer(store: FeatureStore, question: Question) -> dict:
    """What a store says of a request."""
    rows = [impression.columns for impression in question.request.shown]
    known = {side: [name for name in names if name in store.like.columns] for side, names in SENT.items()}
    hydrated = store.hydrate(
        rows[0]["user"],
        [row["item"] for row in rows],
        question.request.time,
        context={name: rows[0][name] for name in known["context"]},
        candidates={name: [row[name] for row in rows] for name in known["candidates"]},
    )
    (row,) = hydrated.to_pylist()
    return {name: counted(row[name]) for name in ("time", "context", "candidates")}


def feed(store: FeatureStore, drawn_log: Drawn, low: int, high: int, *, without: dict | None = None) -> None:
    """Give a store what the log has between two moments: impressions, all but those like `without`, then events."""
    rows = [row for row in drawn_log.rows if row["item"] is not None and low <= row["time"] < high and row != without]
    if rows:
        store.feed(drawn_log.frame(rows, drawn_log.kinds).collect())
    for name, log in drawn_log.events.items():
        events = [event for event in log.rows if low <= event["time"] < high]
        if events:
            store.happened(name, drawn_log.frame(events, EVENT).collect())


def cut_at(drawn_log: Drawn, cut: int) -> Drawn:
    """The log up to a timestamp."""
    events = {
        name: replace(log, rows=[e for e in log.rows if e["time"] < cut]) for name, log in drawn_log.events.items()
    }
    return replace(drawn_log, rows=[row for row in drawn_log.rows if row["time"] < cut], events=events)


def differences(actual: dict, expected: dict) -> list[str]:
    """Every value of two rows that is not the same."""
    pairs = [("context", actual["context"], expected["context"])]
    rows = zip(actual["candidates"], expected["candidates"], strict=True)
    pairs += [(f"candidates[{place}]", *two) for place, two in enumerate(rows)]
    return [
        f"{side}.{name}: {left[name]!r} is not {right[name]!r}"
        for side, left, right in pairs
        for name in left.keys() | right.keys()
        if repr(left[name]) != repr(right[name])
    ]


def before(log: Drawn, late: dict) -> bool:
    """Whether a row is like another, or might have said that a request began earlier than the others say."""
    tables = [row for table in (log.users, log.items) for rows in (table or {}).values() for row in rows]
    matters = (
        {"before", "so_far"} & log.spec.context.keys()
        or expects(log.spec)
        or any(row["since"] is not None for row in tables)
    )
    read = sorted(logs.read_columns(log.spec, SAYS))  # a repeat of a row that is long forgotten is another impression
    alike = [row for row in log.rows if [row.get(name) for name in read] == [late.get(name) for name in read]]
    return len(alike) > 1 or bool(matters)
