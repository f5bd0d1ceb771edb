"""Tiny logs and specs that the tests of features share."""

from __future__ import annotations

import polars as pl
from hypothesis import strategies as st

from features import joins, labels, sessions
from features.logs import Logs
from features.past import Behaviour
from rec.spec import Spec, parse

SECOND = 1_000_000

SPEC = """
name = "tiny"
keys = {{ user = "user", item = "item", time = "time" }}
requests = {{ gap = "{gap}s" }}
split = {{ validation = 2026-03-02T00:00:00Z, test = 2026-03-03T00:00:00Z }}
[context]
user = {{ kind = "id" }}
{context}
[candidates]
item = {{ kind = "id" }}
{candidates}
[tasks]
click = {{ label = "clicked = 1", window = "{window}s" }}
{tasks}
"""


def spec(*, context: str = "", candidates: str = "", tasks: str = "", gap: int = 5, window: int = 0) -> Spec:
    """A spec of users who are shown items, with more lines where a test wants them."""
    return parse(SPEC.format(context=context, candidates=candidates, tasks=tasks, gap=gap, window=window))


def frame(rows: list[tuple]) -> pl.DataFrame:
    """Rows of (user, item, second, clicked)."""
    kinds = {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "clicked": pl.Int64}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def logs(rows: list[tuple]) -> Logs:
    """The same as Logs without side tables."""
    return Logs(frame(rows).lazy())


def known(made: Spec, rows: list[tuple]) -> tuple[sessions.Sessions, Behaviour]:
    """The requests of some rows, and their past."""
    grouped = sessions.group(made, joins.read(made, logs(rows)).rows)
    return grouped, Behaviour(made, grouped.rows, labels.read(made, grouped.rows))


# few users, items and seconds, so that ties, repeats and unknown ids are common
impressions = st.lists(
    st.tuples(
        st.sampled_from([None, 1, 2, 3]),
        st.sampled_from([None, 10, 11, 12]),
        st.integers(0, 12),
        st.sampled_from([None, 0, 0, 1, 1]),
    ),
    min_size=1,
    max_size=25,
)
