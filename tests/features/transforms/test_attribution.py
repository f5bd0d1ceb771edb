"""Which impression caused an event: against a loop over events, and the cases one by one."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.logs.logs import EventLog, Finding
from features.logs.timestamps import MOMENT, TIME
from features.transforms.attribution import attribute, checked
from rec.spec import parse
from tests.reference import logs as slow

SPEC = parse(
    """
    name = "x"
    keys = { user = "user", item = "item", time = "time", request = "rid" }
    context.user.kind = "id"
    candidates.item.kind = "id"
    tasks.a.label = "a"
    """
)
KINDS = {"user": pl.Int64, "item": pl.Int64, "rid": pl.String, "time": pl.Int64}


def frame(rows: list[dict], **more: pl.DataType) -> pl.DataFrame:
    """Rows as `reading.batches` gives them."""
    frame_of_rows = pl.DataFrame(rows, schema={**KINDS, **more}, orient="row")
    return frame_of_rows.with_columns(pl.col("time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(TIME))


def row(user: int | None, item: int | None, time: int, rid: str | None = None, **more: object) -> dict:
    """An impression or an event."""
    return {"user": user, "item": item, "rid": rid, "time": time, **more}


def happened(shown: list[dict], events: list[dict], **log: object) -> tuple[pl.DataFrame, list[Finding]]:
    """What a log of events `c`, with a value `v`, makes of impressions."""
    described = {"c": EventLog((), ("v",), **log)}
    events = [{"v": 0, **event} for event in events]
    return attribute(SPEC, frame(shown), {"c": frame(events, v=pl.Int64())}, described)


# few of everything, so that ties, repeats, strangers and unknown items are common
drawn = {
    "user": st.sampled_from([None, 1, 2]),
    "time": st.integers(0, 6),
    "rid": st.sampled_from([None, "a", "b"]),
}
impressions = st.builds(row, item=st.sampled_from([10, 11]), **drawn)
events = st.builds(row, item=st.sampled_from([None, 10, 11, 12]), **drawn)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(impressions, min_size=1, max_size=8),
    st.lists(events, max_size=10),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_events_find_the_impression_that_a_loop_finds(shown, events, within, by_request):
    """Whether it happened, when first, how often, and the values of the first; events are numbered in `v`."""
    events = [{**event, "v": number} for number, event in enumerate(events)]
    twin = [slow.Shown(dict(row_of), row_of["time"], place) for place, row_of in enumerate(shown)]
    slow.attribute(SPEC, twin, "c", slow.EventRows(events, ("v",), within, by_request=by_request))
    lasting = None if within is None else timedelta(microseconds=within)
    attributed, _ = happened(shown, events, within=lasting, by_request=by_request)
    names = ["user", "item", "rid", "time", "c", "c_time", "c_count", "v"]
    got = attributed.with_columns(pl.col("c_time").dt.timestamp("us")).select(names).rows(named=True)
    assert got == [{name: impression.columns[name] for name in names} for impression in twin]


def test_a_microsecond_decides():
    """An event at its impression's timestamp belongs to it, an earlier one does not; the window's end is inside."""
    shown = [row(1, 10, 5)]
    for time, count in ((4, 0), (5, 1), (7, 1), (8, 0)):
        attributed, _ = happened(shown, [row(1, 10, time)], within=timedelta(microseconds=2))
        assert attributed["c_count"].to_list() == [count]


def test_the_same_request_comes_first():
    """Even if the item was shown again since; without an impression in it, the latest of all is next."""
    shown = [row(1, 10, 1, "a"), row(1, 10, 2, "b")]
    events = [row(1, 10, 3, "a"), row(1, 10, 3, "z"), row(1, 10, 3)]
    assert happened(shown, events, by_request=True)[0]["c_count"].to_list() == [1, 2]
    assert happened(shown, events)[0]["c_count"].to_list() == [0, 3]


def test_no_event_at_all():
    """Every impression has the columns, and nothing is found."""
    attributed, findings = happened([row(1, 10, 1)], [])
    assert attributed.select("c", "c_time", "c_count", "v").rows() == [(0, None, 0, None)]
    assert attributed.schema["c_time"] == MOMENT
    assert [finding.count for finding in findings] == [0, 0]


def test_ids_of_another_type_still_meet():
    """A number in one log and text in the other."""
    events = frame([row(1, 10, 1, v=3)], v=pl.Int64()).with_columns(pl.col("user", "item").cast(pl.String))
    attributed, _ = attribute(SPEC, frame([row(1, 10, 1)]), {"c": events}, {"c": EventLog((), ("v",))})
    assert attributed["v"].to_list() == [3]


def test_too_many_lost_events_fail():
    """More than the log allows; how many came before their impression is told beside."""
    shown, events = [row(1, 10, 5)], [row(1, 10, time) for time in (5, 4, 3)]
    _, findings = happened(shown, events)
    assert all(finding.passed for finding in findings)
    assert checked(findings, {"c": EventLog((), unmatched=0.7)}) == findings
    lost, early = checked(findings, {"c": EventLog((), unmatched=0.5)})
    assert (lost.name, lost.passed, lost.count, lost.total) == ("source.events.c", False, 2, 3)
    assert lost.examples[0] == "user=1 item=10 time=1970-01-01 00:00:00.000003+00:00"
    assert lost.text == (
        "events without an impression at or before them; left out; "
        "source.events.c.unmatched allows 50%; do the keys and clocks of both logs agree?"
    )
    assert (early.name, early.passed, early.count, early.total) == ("source.events.c (clock)", True, 2, 3)


@pytest.mark.parametrize("name", ["v", "c"])
def test_a_column_of_the_impressions_gives_way(name):
    """What the event's log says of an outcome is what counts."""
    shown = frame([row(1, 10, 1)]).with_columns(pl.lit(9).alias(name))
    attributed, _ = attribute(SPEC, shown, {"c": frame([], v=pl.Int64())}, {"c": EventLog((), ("v",))})
    assert attributed[name].to_list() == [0 if name == "c" else None]
