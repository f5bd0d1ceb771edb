"""Base types of every table of a spec: frozen, strictly typed, with durations and timestamps as people write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DURATION = re.compile(r"([0-9]{1,12})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=36_500)  # a century; a timestamp and this much later is still a timestamp
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = DURATION.fullmatch(value)
    if match is None:
        raise ValueError("expected a duration such as '30s', '45m', '12h' or '7d'")
    duration = int(match[1]) * _SECONDS[match[2]]
    if duration > _LONGEST.total_seconds():
        raise ValueError(f"expected a duration of at most {_LONGEST.days}d")
    return timedelta(seconds=duration)


def _timestamp(value: object) -> object:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a timestamp such as '2026-03-08' or '2026-03-08T12:00:00Z'") from None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return value
    timestamp = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if not _FIRST <= timestamp <= _LAST:
        raise ValueError(f"expected a timestamp from {_FIRST:%Y} to {_LAST:%Y}")
    return timestamp


def _time_zone(value: object) -> object:
    try:
        return ZoneInfo(value).key if isinstance(value, str) else value
    except (ValueError, KeyError, OSError):
        raise ValueError("expected a time zone such as 'UTC' or 'Asia/Shanghai'") from None


def _separator(value: object) -> object:
    if isinstance(value, str) and not (len(value) == 1 and value.isascii() and value not in "\"'\r\n\0"):
        raise ValueError("expected one ASCII character, such as ';', that is no quote and no line end")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Timestamp = Annotated[datetime, BeforeValidator(_timestamp)]
TimeZone = Annotated[str, BeforeValidator(_time_zone)]
Separator = Annotated[str, BeforeValidator(_separator)]
# Counts of rows, bytes or columns fit 32 bits; counts of network modules are few.
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
MANY = 100_000  # columns, steps or buckets of one feature, at most
Few = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """A frozen table of the spec that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)
