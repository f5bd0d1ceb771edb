"""Logs and specs drawn by hypothesis: as rows for the slow twin, and as frames for the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import polars as pl
from hypothesis import strategies as st

from features.logs.logs import EventLog, LazySideTable, Logs, Piece
from features.logs.timestamps import MOMENT
from rec.spec import Spec
from tests.features.drawn_specs import specs
from tests.reference import logs as slow
from tests.reference.features import session_table

SECOND, HOUR = 1_000_000, 3_600_000_000
FIRST = 1_772_323_200 * SECOND  # 2026-03-01
ROW = {
    "user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "rid": pl.String, "sid": pl.Int64, "clicked": pl.Int64,
    "clicked_time": MOMENT, "dwell": pl.Int64, "mood": pl.Int64, "city": pl.String, "query": pl.String,
    "place": pl.Int64, "tags": pl.List(pl.Int64), "moved_time": MOMENT, "unread": pl.Int64,
    "page": pl.Int64,
}  # fmt: skip
USER = {"user": pl.Int64, "since": MOMENT, "age": pl.Float64, "home": pl.String, "likes": pl.List(pl.Int64)}
ITEM = {
    "item": pl.Int64, "since": MOMENT, "category": pl.String, "price": pl.Float64, "listed": MOMENT,
    "picture": pl.List(pl.Float64),
}  # fmt: skip
EVENT = {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "rid": pl.String, "dwell": pl.Int64}


def equal(left: object, right: object) -> bool | None:
    """As in SQL: a comparison with nothing is nothing."""
    return None if left is None else left == right


def long(row: Mapping) -> bool | None:
    """As in SQL: what is false is false whatever the rest would be."""
    clicked, stayed = equal(row["clicked"], 1), None if row["dwell"] is None else row["dwell"] >= 3
    if clicked is False or stayed is False:
        return False
    return None if clicked is None or stayed is None else True


# what every label that is drawn means
SAYS = {
    "clicked = 1": slow.Says(("clicked",), lambda row: equal(row["clicked"], 1)),
    "clicked = 1 AND dwell >= 3": slow.Says(("clicked", "dwell"), long),
    "CASE WHEN clicked = 1 THEN dwell END": slow.Says(
        ("clicked", "dwell"), lambda row: row["dwell"] if row["clicked"] == 1 else None
    ),
    "mood = 3": slow.Says(("mood",), lambda row: equal(row["mood"], 3)),
}


@dataclass(frozen=True)
class Drawn:
    """A spec and its logs; `kinds` are the columns that the impressions have, and `key` the type of users and items."""

    spec: Spec
    rows: list[dict]
    kinds: Mapping = field(default_factory=lambda: ROW)
    users: Mapping | None = None
    items: Mapping | None = None
    events: Mapping[str, slow.EventRows] = field(default_factory=dict)
    key: pl.DataType = field(default_factory=pl.Int64)

    def twin(self) -> dict[str, list[dict]]:
        """The session tables as the twin has them."""
        return session_table(self.spec, self.rows, says=SAYS, users=self.users, items=self.items, events=self.events)

    def logs(self, *, pieces: int = 1) -> Logs:
        """The logs as a source would give them, the impressions in so many pieces."""
        cut = -(-len(self.rows) // pieces)
        parts = [self.rows[at : at + cut] for at in range(0, len(self.rows), cut)]
        return Logs(
            tuple(Piece(self.frame(part, self.kinds), f"impressions-{i}") for i, part in enumerate(parts)),
            users=self._side(self.users, USER),
            items=self._side(self.items, ITEM),
            happened={
                name: EventLog(
                    (Piece(self.frame(log.rows, EVENT), name),),
                    log.values,
                    None if log.within is None else timedelta(microseconds=log.within),
                    log.by_request,
                    unmatched=1.0,
                )
                for name, log in self.events.items()
            },
        )

    def frame(self, rows: list[dict], kinds: Mapping) -> pl.LazyFrame:
        """Rows as a source gives them, moments as datetimes."""
        kinds = {**kinds, **{key: self.key for key in ("user", "item", "page") if key in kinds}}
        whole = {column: pl.Int64 if kind == MOMENT else kind for column, kind in kinds.items()}
        moments = [column for column, kind in kinds.items() if kind == MOMENT]
        return pl.DataFrame(rows, schema=whole, orient="row").lazy().with_columns(pl.col(moments).cast(MOMENT))

    def _side(self, table: Mapping | None, kinds: Mapping) -> LazySideTable | None:
        if table is None:
            return None
        rows = [{next(iter(kinds)): key, **row} for key, several in table.items() for row in several]
        lasting = all(row["since"] is None for row in rows)
        return LazySideTable(self.frame(rows, kinds), since=None if lasting else "since")


moments = st.builds(
    lambda hour, second, more: FIRST + hour * HOUR + second * SECOND + more,
    st.integers(0, 2),
    st.sampled_from([0, 0, -1, 1, 2, 3, 5]),
    st.sampled_from([0, 0, 0, 0, -1, 1]),  # a microsecond off
)
people = st.sampled_from([1, 1, 1, 1, 2, 3, None])  # one of them heavy
items = st.sampled_from([10, 10, 11, 12, 99])  # one that no table knows


@st.composite
def _row(draw: st.DrawFn) -> dict:
    user, time, clicked = draw(people), draw(moments), draw(st.sampled_from([None, 0, 0, 1, 1]))
    late = draw(st.sampled_from([None, 0, 1, 2 * SECOND, 2 * SECOND + 1, HOUR]))
    return {
        "user": user,
        "item": draw(st.sampled_from([10, 10, 10, 11, 11, 12, 99, None])),
        "time": time,
        "rid": f"{user}/{draw(st.integers(0, 3))}",
        "sid": draw(st.sampled_from([None, 1, 2])),
        "clicked": clicked,
        "clicked_time": time + late if clicked == 1 and late is not None else None,
        "dwell": draw(st.sampled_from([None, 0, 2, 3, 7, 100])),
        "mood": draw(st.sampled_from([None, 1, 3])),
        "city": draw(st.sampled_from(["x", "x", "x", "y", None])),
        "query": draw(st.sampled_from([None, "", "red SHOES, size-42", "\u00e9t\u00e9_chaud  \u4e2d\u6587!"])),
        "page": draw(st.sampled_from([10, 11, 12, None])),
        "place": draw(st.sampled_from([None, 1, 2])),
        "tags": draw(st.sampled_from([[1], [1, 2], [], None])),
        "moved_time": draw(st.one_of(moments, st.just(FIRST + 24 * HOUR), st.none())),
        "unread": draw(st.integers(0, 9)),
    }


@st.composite
def _side_table(draw: st.DrawFn, keys: list[int], columns: Mapping[str, st.SearchStrategy]) -> dict:
    """Rows for some of the keys: one that always holds, or several with the timestamps from which they do."""
    changing = draw(st.booleans())
    starts = st.lists(st.one_of(st.just(FIRST - HOUR), moments), unique=True, max_size=3)
    table = {}
    for key in keys:
        since = draw(starts) if changing else [None] * draw(st.sampled_from([1, 1, 0]))
        since = since or ([FIRST] if changing else [None]) if key == keys[0] else since  # an empty table is refused
        table[key] = [{"since": start, **{name: draw(values) for name, values in columns.items()}} for start in since]
    return table


user_tables = _side_table(
    [1, 2],
    {
        "age": st.sampled_from([30.1, 17.5, None]),
        "home": st.sampled_from(["a", "b", "a", None]),
        "likes": st.sampled_from([[10, 11], [10], [], None]),
    },
)
item_tables = _side_table(
    [10, 11, 12],
    {
        "category": st.sampled_from(["p", "q", "p", None]),
        "price": st.sampled_from([0.1, 9.5, None]),
        "listed": st.one_of(moments, moments, st.none()),
        "picture": st.sampled_from([[0.1, -2.0], None]),
    },
)


@st.composite
def _events(draw: st.DrawFn, *, by_request: bool) -> slow.EventRows:
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "user": people,
                    "item": items,
                    "time": moments,
                    "rid": st.sampled_from([None, "1/0", "1/1", "2/0"]),
                    "dwell": st.sampled_from([None, 1, 5]),
                }
            ),
            max_size=8,
        )
    )
    within = draw(st.sampled_from([None, 2 * SECOND, HOUR]))
    return slow.EventRows(rows, ("dwell",), within, by_request=by_request)


def called(rows: list[dict]) -> list[dict]:
    """Rows whose users and items are called by words."""
    words = {"user": "user", "item": "item", "page": "item"}  # a page is an item
    return [{k: f"{words[k]} {v}" if k in words and v is not None else v for k, v in row.items()} for row in rows]


@st.composite
def logs(
    draw: st.DrawFn,
    *,
    sampled: bool = False,
    users: bool = True,
    by_request: bool = False,
    only: tuple[str, ...] = ("",),
) -> Drawn:
    """A spec with features of any kind, and logs: ties, repeats, gaps, rows out of order, nobody, unknown items.

    Either the impressions say what was clicked, or a log of events does. Requests have ids sometimes, or always
    (`by_request`); features are those whose names begin as one of `only`.
    """
    keys = ["item", "time", *(["user"] if users else []), *(["request"] if by_request or draw(st.booleans()) else [])]
    keys += draw(st.sampled_from([[], ["session"]])) if users else []
    text = draw(st.booleans())
    spec = draw(specs(keys=keys, text=text, sampled=sampled, only=only))
    length = draw(st.sampled_from([1, 12, 24]))
    rows = draw(st.lists(_row(), min_size=length, max_size=length))
    changes = st.sampled_from([{}, {}, {"tags": [7]}, {"unread": -1}, {"dwell": 9}])
    repeats = draw(st.lists(st.tuples(st.integers(0, 23), changes), max_size=3))
    rows += [{**rows[place % len(rows)], **change} for place, change in repeats]
    rows = [{**rows[0], "item": 10, "time": FIRST - 10 * SECOND, "clicked_time": None}, *rows]  # somebody trains
    events = {}
    dropped = set() if draw(st.booleans()) else {"clicked_time"}
    if users and draw(st.booleans()):
        events = {"clicked": draw(_events(by_request="request" in keys and draw(st.booleans())))}
        dropped = {"clicked", "clicked_time", "dwell"}
    rows = [{column: value for column, value in row.items() if column not in dropped} for row in rows]
    tables = [draw(user_tables) if users else None, draw(item_tables)]
    if text:
        rows = called(rows)
        events = {name: replace(log, rows=called(log.rows)) for name, log in events.items()}
        for place, key in enumerate(("user", "item")):
            tables[place] = tables[place] and {f"{key} {value}": row for value, row in tables[place].items()}
    kinds = {column: kind for column, kind in ROW.items() if column not in dropped}
    return Drawn(spec, rows, kinds, *tables, events, pl.String() if text else pl.Int64())
