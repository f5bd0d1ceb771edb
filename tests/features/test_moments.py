"""Moments, however a column writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.moments import moments
from rec.errors import DataError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([NOON]),
        pl.Series([NOON.replace(tzinfo=None)]),
        pl.Series([NOON.astimezone(timezone(timedelta(hours=8)))]),
        pl.Series(["2026-03-02T12:00:00Z"]),
        pl.Series(["2026-03-02 12:00:00"]),
        pl.Series(["2026-03-02T20:00:00.000+08:00"]),
        pl.Series([int(NOON.timestamp())]),
        pl.Series([NOON.timestamp()]),
    ],
    ids=["utc", "naive", "zoned", "iso", "text", "offset", "seconds", "fraction"],
)
def test_every_form_is_the_same_moment(column):
    """A moment without a zone is UTC."""
    assert moments(column, unit="s", where="time").to_list() == [NOON]


def test_a_day_begins_at_midnight_utc():
    """As a date or as text."""
    begin = [datetime(2026, 3, 2, tzinfo=UTC)]
    assert moments(pl.Series([date(2026, 3, 2)]), unit="s", where="time").to_list() == begin
    assert moments(pl.Series(["2026-03-02"]), unit="s", where="time").to_list() == begin


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000), st.sampled_from(["s", "ms", "us", "ns"]))
def test_numbers_count_units_since_1970(second, unit):
    """In any unit."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    made = moments(pl.Series([second * per, None]), unit=unit, where="time")
    assert made.dt.timestamp("us").to_list() == [second * 10**6, None]


def test_rows_may_write_different_digits_of_a_second():
    """Python leaves the fraction out when it is zero."""
    column = pl.Series(["2026-03-02 12:00:00.250000+00:00", None, "2026-03-02 12:00:00+00:00"])
    assert moments(column, unit="s", where="time").to_list() == [NOON + timedelta(seconds=0.25), None, NOON]


def test_a_column_of_nothing_is_moments_that_are_missing():
    """So that an attribute may be empty in a small log."""
    assert moments(pl.Series([None]), unit="s", where="time").to_list() == [None]


def test_words_are_refused():
    """With the first that is none."""
    with pytest.raises(DataError, match=r"time: expected a moment such as '2026-.*', got 'soon'"):
        moments(pl.Series(["2026-03-02", "soon"]), unit="s", where="time")


def test_a_mistaken_unit_is_refused():
    """Milliseconds read as seconds end in the year 54000."""
    with pytest.raises(DataError, match=r"beyond the year 2200 when counted in 's' .*; did you mean 'ms'\?"):
        moments(pl.Series([1_772_452_800_000]), unit="s", where="time")


def test_other_types_are_refused():
    """A list is no moment."""
    with pytest.raises(DataError, match=r"time: expected moments, got List"):
        moments(pl.Series([[1]]), unit="s", where="time")
