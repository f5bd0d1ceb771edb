"""Timestamp columns: dates, datetimes, text, or counts since 1970, as timestamps in microseconds, UTC.

    parse      an invalid value becomes null: for logs, whose bad rows are counted
    moments    the first invalid value is a DataError: for columns in which every value must be a timestamp

A count's unit may be "auto": inferred from each value's size (seconds below 1e11, milliseconds below 1e14, microseconds
below 1e17, else nanoseconds), which is right for all timestamps from March 1973 on, for every split of the files.

Numbers that all look like days, 20260301 or 202603011230, are no counts: invalid, until a format says what they are.

A datetime, date or text without a zone is of the clock `zone`. Where that clock is set back, an hour comes twice and is
the first one; where it is set forward, an hour does not exist and is invalid.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

import polars as pl

from rec.errors import DataError, SpecError

MOMENT = pl.Datetime("us", "UTC")
UTC = "UTC"
TIME = "@time"  # the timestamp of an impression, parsed; no column of a log is called so
Unit = Literal["s", "ms", "us", "ns", "auto"]
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SMALLEST = {"ns": 10**17, "us": 10**14, "ms": 10**11}  # a count from here on is of this unit, if nobody says more
_LAST_SECOND = 7_258_118_400  # the year 2200: beyond it a unit is mistaken more likely than meant
_YEAR = "2000"  # of a format without a year: a leap year, so that 29 February is a day
_SAYS_YEAR = ("%Y", "%y", "%C", "%G", "%g", "%s", "%D", "%F", "%x", "%c", "%v", "%+")
_YEAR_FIRST = re.compile(r"\s*\d{4}\D")
_ROUNDS = 8  # ways of writing a timestamp that are guessed before the slower, complete way
_WHOLE = r"^\s*(\d+)\.0*\s*$"  # a day or a year as programs write numbers where others are missing
_COUNT = r"^\s*[+-]?\d+(?:\.\d*)?(?:[eE]\+?\d+)?\s*$"
_ZONED = rf":\d{{2}}.*(?:Z|UTC|[+-]\d{{2}}:?(?:\d{{2}})?)\s*$|{_COUNT}"  # text that says its zone, and counts
_ISO = (
    r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2}(?:[.,]\d{1,9})?))?\s*"
    r"(?:(Z|UTC)|([+-]\d{2}):?(\d{2})?)?)?$"
)


def moments(column: pl.Series, *, unit: Unit, where: str, form: str | None = None, zone: str = UTC) -> pl.Series:
    """The column as `timestamp[us, UTC]`; a timestamp without a zone is of `zone`, a number counts `unit`s since 1970.

    >>> moments(pl.Series([0, 3]), unit="s", where="time").dt.timestamp("ms").to_list()
    [0, 3000]

    Raises DataError for the first invalid value, such as one after the year 2200.
    """
    times = parse(column, unit=unit, where=where, form=form, zone=zone)
    bad = column.filter(times.is_null() & column.is_not_null())
    bad = bad.drop_nans() if bad.dtype.is_float() else bad
    if bad.is_empty():
        return times
    first = bad.max() if bad.dtype.is_numeric() else bad[0]
    reason = wrong(bad.dtype, first, unit, form)
    raise DataError(
        f"{where}: {first} is {reason}" if reason.startswith("beyond") else f"{where}: {reason}, got {first!r}"
    )


def parse(column: pl.Series, *, unit: Unit, where: str, form: str | None = None, zone: str = UTC) -> pl.Series:
    """The column as `timestamp[us, UTC]`, null where a value is invalid; `form` is a strftime format of text.

    Raises DataError for a column of another type, such as lists, and SpecError for an invalid `form`.
    """
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        return (_local(column, zone) if kind.time_zone is None else column).cast(MOMENT)
    if kind == pl.Date:
        return _local(column.cast(pl.Datetime("us")), zone)
    if kind in (pl.Categorical, pl.Enum):
        column, kind = column.cast(pl.String), pl.String()
    if form is not None and kind.is_numeric():  # what a CSV makes of 20260302, and numpy where some are missing
        whole = column.cast(pl.Int64, strict=False)
        column, kind = whole.set((whole != column).fill_null(value=True), None).cast(pl.String), pl.String()
    if kind == pl.String:
        return _text(column, unit, zone) if form is None else _formed(column, form, where, zone)
    if kind.is_numeric():
        return _counted(column, unit)
    if kind == pl.Null:
        return column.cast(MOMENT)
    raise DataError(f"{where}: expected timestamps, got {kind}")


def of_outcomes(column: pl.Series, looks: pl.DataType, unit: Unit, form: str | None, zone: str) -> pl.Series:
    """Timestamps of outcomes, in any form that keys.time may have, in its `form` or another; null where invalid.

    `looks` is the inferred type of text.
    """
    numbers = column.cast(looks, strict=False) if column.dtype == pl.String and looks.is_numeric() else column
    times = parse(numbers, unit=unit, where=column.name, form=form, zone=zone)
    if form is not None or numbers is not column:
        times = times.fill_null(parse(numbers, unit=unit, where=column.name, zone=zone))
        times = times.fill_null(parse(column, unit=unit, where=column.name, zone=zone))
    return times


def wrong(kind: pl.DataType, got: object, unit: Unit, form: str | None) -> str:
    """The reason why a value is invalid: `expected a timestamp such as ...`, `beyond the year 2200 ...`."""
    if isinstance(got, int | float) and _digits_of_days(pl.Series([got])) is not None:
        written = "%Y%m%d%H%M%S"[: len(f"{got:.0f}") - 2]
        return f"expected a timestamp, and this looks like a day; keys.time_format = '{written}' says that it is one"
    if kind.is_numeric() and isinstance(got, int | float):
        right = next((u for u, per in _PER_SECOND.items() if abs(got) <= _LAST_SECOND * per), None)
        hint = f"; did you mean '{right}'?" if right and right != unit else ""
        return f"beyond the year 2200 when counted in {unit!r} (keys.time_unit){hint}"
    such = "such as '2026-03-02T08:30:00+00:00'" if form is None else f"written {form!r} (keys.time_format)"
    return f"expected a timestamp {such}"


def _local(naive: pl.Series, zone: str) -> pl.Series:
    """Datetimes of a clock without a zone, in UTC."""
    if zone == UTC:
        return naive.dt.replace_time_zone(UTC)
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone(UTC)


def _text(column: pl.Series, unit: Unit, zone: str) -> pl.Series:
    """ISO text, or counts as text."""
    times = _iso_text(column, unit)
    if zone == UTC:
        return times
    local = ~column.str.contains(_ZONED).fill_null(value=True)
    return times.zip_with(~local, _local(times.dt.replace_time_zone(None), zone)) if local.any() else times


def _iso_text(column: pl.Series, unit: Unit) -> pl.Series:
    """ISO text, of UTC where it says no zone, or counts as text; rows may differ in fractional digits."""
    done = pl.Series(column.name, [None], MOMENT).new_from_index(0, len(column))
    for _ in range(_ROUNDS):
        left = column.is_not_null() & done.is_null()
        rest = column.filter(left)
        if rest.is_empty():
            return done
        if not _YEAR_FIRST.match(rest[0]):  # of 03/04 polars guesses that it is a day of April
            break
        try:
            times = rest.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        except pl.exceptions.PolarsError:
            break
        if times[0] is None:
            break
        done = done.scatter(left.arg_true(), times)
    for slower in (_iso, *(partial(_counts, kind=kind, unit=unit) for kind in (pl.Int64, pl.Float64))):
        left = column.is_not_null() & done.is_null()
        if left.any():
            done = done.scatter(left.arg_true(), slower(column.filter(left)))
    return done


def _counts(column: pl.Series, kind: type[pl.DataType], unit: Unit) -> pl.Series:
    """Text as counts since 1970, written as numbers of a type."""
    return _counted(column.str.strip_chars().cast(kind, strict=False), unit)


def _iso(column: pl.Series) -> pl.Series:
    """ISO text, each row parsed independently of the others."""
    part = column.str.strip_chars().str.extract_groups(_ISO).struct.unnest()
    day, minute, second, _, hours, minutes = part.get_columns()
    zone = pl.select(pl.when(hours.is_null()).then(pl.lit("+00:00")).otherwise(hours + ":" + minutes.fill_null("00")))
    text = day + "T" + minute.fill_null("00:00") + ":" + second.fill_null("00").str.replace(",", ".", literal=True)
    return (text + zone.to_series()).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)


def _formed(column: pl.Series, form: str, where: str, zone: str) -> pl.Series:
    """Text in the spec's strftime format; without a year in the format, the year is 2000."""
    if not any(sign in form for sign in _SAYS_YEAR):
        column, form = _YEAR + " " + column, "%Y " + form
    zoned = any(sign in form for sign in ("%z", "%:z", "%#z", "%+"))
    try:
        times = column.str.to_datetime(form, time_unit="us", time_zone="UTC" if zoned else None, strict=False)
    except pl.exceptions.PolarsError as error:
        message = str(error).splitlines()[0]
        raise SpecError(f"{where}: {form!r} is not a strftime format (keys.time_format): {message}") from None
    times = times if zoned else _local(times, zone)
    whole = column.str.extract(_WHOLE) if times.null_count() > column.null_count() else None
    if whole is None or whole.null_count() == len(whole):
        return times
    return times.fill_null(_formed(whole, form, where, zone))


def _counted(column: pl.Series, unit: Unit) -> pl.Series:
    """Counts since 1970; null beyond the year 2200."""
    column = column.cast(pl.Int64 if column.dtype.is_integer() else pl.Float64, strict=False)
    if unit in ("s", "auto") and _digits_of_days(column) is not None:
        return pl.Series(column.name, [None], MOMENT).new_from_index(0, len(column))
    if unit == "auto":
        size, times = column.abs(), _scaled(column, "s")
        for larger, least in reversed(_SMALLEST.items()):
            times = times.zip_with((size < least).fill_null(True), _scaled(column, larger))
    else:
        times = _scaled(column, unit)
    return times.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _digits_of_days(numbers: pl.Series) -> int | None:
    """How many digits after the day numbers have that all look like days: 0 for 20260301, 4 for 202603011230.

    Such days are no counts: of seconds they would be a few weeks of 1970.
    """
    least, most = numbers.min(), numbers.max()
    for more in (0, 4, 6):
        first, last = 19000101 * 10**more, 22010101 * 10**more
        if least is None or most is None or not (first <= least and most < last):  # type: ignore[operator]  # numbers
            continue
        days = numbers.drop_nulls().cast(pl.Int64, strict=False) // 10**more
        month, day = days // 100 % 100, days % 100
        return more if bool((month.is_between(1, 12) & day.is_between(1, 31)).all()) else None
    return None


def _scaled(column: pl.Series, unit: str) -> pl.Series:
    """Counts of `unit` as microseconds."""
    fits = (column.abs() <= _LAST_SECOND * _PER_SECOND[unit]).fill_null(False)
    column = pl.select(pl.when(fits).then(column)).to_series()
    if column.dtype.is_integer():
        return column // 1000 if unit == "ns" else column * (10**6 // _PER_SECOND[unit])
    return (column * (10**6 / _PER_SECOND[unit])).round().cast(pl.Int64)
