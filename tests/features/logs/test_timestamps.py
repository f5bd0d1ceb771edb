"""Moments, however a column writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.logs.timestamps import moments, parse
from rec.errors import DataError, SpecError

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
    """A timestamp without a zone is UTC."""
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
    parsed = moments(pl.Series([second * per, None]), unit=unit, where="time")
    assert parsed.dt.timestamp("us").to_list() == [second * 10**6, None]


def test_rows_may_write_different_digits_of_a_second():
    """Python leaves the fraction out when it is zero."""
    column = pl.Series(["2026-03-02 12:00:00.250000+00:00", None, "2026-03-02 12:00:00+00:00"])
    assert moments(column, unit="s", where="time").to_list() == [NOON + timedelta(seconds=0.25), None, NOON]


def test_a_column_of_nothing_is_moments_that_are_missing():
    """So that an attribute may be empty in a small log."""
    assert moments(pl.Series([None]), unit="s", where="time").to_list() == [None]


def test_words_are_refused():
    """With the first that is none."""
    with pytest.raises(DataError, match=r"time: expected a timestamp such as '2026-.*', got 'soon'"):
        moments(pl.Series(["2026-03-02", "soon"]), unit="s", where="time")


def test_a_mistaken_unit_is_refused():
    """Milliseconds read as seconds end in the year 54000."""
    with pytest.raises(DataError, match=r"beyond the year 2200 when counted in 's' .*; did you mean 'ms'\?"):
        moments(pl.Series([1_772_452_800_000]), unit="s", where="time")


def test_other_types_are_refused():
    """A list is no timestamp."""
    with pytest.raises(DataError, match=r"time: expected timestamps, got List"):
        moments(pl.Series([[1]]), unit="s", where="time")


@settings(deadline=None)
@given(st.integers(10**8, 4_000_000_000), st.sampled_from(["s", "ms", "us", "ns"]))
def test_a_unit_is_told_from_the_size(second, unit):
    """Of every value by itself, whatever unit its neighbours have; from March 1973 on."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    column = pl.Series([1_772_452_800, second * per, 1_772_452_800_000_000])
    parsed = moments(column, unit="auto", where="time")
    assert parsed.dt.timestamp("us").to_list() == [1_772_452_800 * 10**6, second * 10**6, 1_772_452_800 * 10**6]
    assert (
        moments(pl.Series([second + 0.5]), unit="auto", where="time").dt.timestamp("ms").item() == second * 1000 + 500
    )


@pytest.mark.parametrize("width", [pl.Int8, pl.UInt16, pl.Int32, pl.UInt64, pl.Float32])
def test_counts_may_be_of_any_width(width):
    """In a log of the first seconds of 1970."""
    for unit in ("s", "auto"):
        parsed = moments(pl.Series([3], dtype=width), unit=unit, where="time")
        assert parsed.dt.timestamp("ms").to_list() == [3000]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%d.%m.%Y %H:%M", "02.03.2026 12:00", NOON),
        ("%Y%m%d", "20260302", datetime(2026, 3, 2, tzinfo=UTC)),
        ("%Y-%m-%d %H:%M:%S %z", "2026-03-02 20:00:00 +0800", NOON),
        ("%m-%d", "3-2", datetime(2000, 3, 2, tzinfo=UTC)),
        ("%m-%d", "2-29", datetime(2000, 2, 29, tzinfo=UTC)),
    ],
)
def test_text_in_a_form_of_its_own(form, text, expected):
    """A form without a year is of 2000, a leap year."""
    assert moments(pl.Series([text, None]), unit="s", where="time", form=form).to_list() == [expected, None]


def test_a_number_may_be_written_in_a_form():
    """What a CSV makes of 20260302."""
    parsed = moments(pl.Series([20260302]), unit="s", where="time", form="%Y%m%d")
    assert parsed.to_list() == [datetime(2026, 3, 2, tzinfo=UTC)]


def test_a_form_that_is_none_is_refused():
    """By the spec's key."""
    with pytest.raises(SpecError, match=r"time: '%Y %H' is not a strftime format \(keys.time_format\): "):
        moments(pl.Series(["2026 12"]), unit="s", where="time", form="%Y %H")


def test_text_in_many_forms_is_read_row_by_row():
    """Zones, digits of a second, counts; what is none of these is null, wherever it stands."""
    at = {
        "soon": None,
        "2026-03-02T20:00+08:00": NOON,
        "2026-03-02 20:00:00.25+0800": NOON + timedelta(seconds=0.25),
        "2026-03-02 12:00:00,250 UTC": NOON + timedelta(seconds=0.25),
        "2026-03-02T07:00:00-05": NOON,
        "1772452800": NOON,
        "1772452800.25": NOON + timedelta(seconds=0.25),
        "1.7724528e9": NOON,
        "03/02/2026 12:00:00": None,  # the second of March, or the third of February
        "02-03-2026": None,
        " 2026-03-02T12:00Z": NOON,
        "2026-02-30": None,
        "": None,
    }
    for order in (list(at), list(reversed(at))):
        assert parse(pl.Series(order), unit="s", where="time").to_list() == [at[text] for text in order]


def test_a_mistaken_form_is_refused():
    """With the first value that is not of it."""
    with pytest.raises(DataError, match=r"time: expected a timestamp written '%Y' \(keys.time_format\), got 'x'"):
        moments(pl.Series(["x"]), unit="s", where="time", form="%Y")
