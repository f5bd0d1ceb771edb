"""Files of flat rows: a row is a candidate, with the context of its request beside it, in columns named as in the spec.

    request_id,time,user_id,device,item_id,price         a request's id (or keys.request), its time (or keys.time),
    r1,2026-03-09T10:00:00Z,7,ios,3,9.9                  features of the context and of candidates; where both sides
    r1,2026-03-09T10:00:00Z,7,ios,5,                     have one of a name, context.NAME and candidates.NAME
    r2,2026-03-09T10:00:02Z,9,web,3,9.9

Any form of a log will do (features/logs/forms.py), and values become what they become in logs, by
features/logs/dtypes.py.
A column that is not there was not sent; a null was. Rows count from 1, without headers and blank lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features import hashing
from features.logs import column_types, reader
from features.logs.dtypes import Notation, cast, failed
from features.logs.forms import EXTRA, LogFile, opened
from features.logs.logs import first_line
from features.logs.timestamps import MOMENT
from rec.data.session_table import field_type, outcomes_of
from rec.data.transforms import MOMENTS
from rec.errors import DataError, nearest
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec
from serving.online.problems import display

ROW, REASON, KEY, REQUEST, TIME = "row", "reason", "key", "request_id", "time"
_BATCH = 100_000  # rows held at once while a file is read
_BROKEN = (pl.exceptions.PolarsError, OSError)
_VALUES: Mapping[str, pl.DataType] = {"int": pl.Int64(), "string": pl.String(), "float": pl.Float64()}


def open_file(path: Path, spec: Spec) -> tuple[LogFile | None, dict[str, str]]:
    """A file, None where it has no rows, and what its columns are: REQUEST, TIME, or side.feature.

    Raises DataError where it cannot be read, or has a column that is nothing of the spec.
    """
    file = opened(path, str(path), spec.logs)
    if isinstance(file, str):
        raise DataError(f"{path}: {file}")
    if file is None:
        return None, {}
    places = _places(spec)
    columns: dict[str, str] = {}
    for column in file.kinds:
        if column not in places:
            if column in outcomes_of(spec):
                continue
            known = ", ".join(list(places)[:40])
            raise DataError(f"{path}: {column}: no column of flat rows, which are {known}{nearest(column, places)}")
        if places[column] in columns.values():
            raise DataError(f"{path}: {column}: two columns of {places[column]}")
        columns[column] = places[column]
    item = spec.key_feature("item")
    for needed in (TIME, *([f"candidates.{item}"] if item else [])):
        if needed not in columns.values():
            names = " or ".join(column for column, place in places.items() if place == needed)
            raise DataError(f"{path}: {names}: not in this table, and every row needs it")
    return file, columns


def count(file: LogFile | None) -> int:
    """Rows of a file; DataError where it cannot be read."""
    if file is None:
        return 0
    try:
        rows = file.rows if file.rows is not None else file.frame.select(pl.len()).collect().item()
    except _BROKEN as error:
        raise DataError(f"{file.path}: cannot be read: {first_line(error)}") from None
    return rows + (file.torn is not None)


def typed(file: LogFile, columns: Mapping[str, str], spec: Spec) -> Iterator[pl.DataFrame]:
    """The rows of a file: ROW, REASON why one cannot be used, KEY of its request, REQUEST, TIME, and its features.

    Raises DataError where the file cannot be read to its end.
    """
    frame = file.frame.select(name for name in file.frame.collect_schema() if name in columns or name == EXTRA)
    row = 0
    try:
        for rows in frame.collect_batches(chunk_size=_BATCH, maintain_order=True):
            yield _typed(rows, row, file, columns, spec)
            row += len(rows)
    except _BROKEN as error:
        raise DataError(f"{file.path}: cannot be read beyond row {row}: {first_line(error)}") from None
    if file.torn is not None:
        empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.String())).clear(1)
        yield _typed(empty, row, file, columns, spec).with_columns(pl.lit(file.torn).alias(REASON))


def _places(spec: Spec) -> dict[str, str]:
    """What every column that a file may have stands for."""
    sent = [(s, name) for s, features in spec.sides() for name, f in features.items() if field_type(f) is not None]
    names = [name for _, name in sent]
    places = {f"{side}.{name}": f"{side}.{name}" for side, name in sent}
    places |= {name: f"{side}.{name}" for side, name in sent if names.count(name) == 1}
    keys = {spec.keys.time or TIME: TIME, TIME: TIME, spec.keys.request or REQUEST: REQUEST, REQUEST: REQUEST}
    return {**{name: place for name, place in keys.items() if name not in places}, **places}


def _typed(rows: pl.DataFrame, start: int, file: LogFile, columns: Mapping[str, str], spec: Spec) -> pl.DataFrame:
    how, reason = Notation.of(spec), pl.Series(REASON, [None], pl.String()).new_from_index(0, len(rows))
    sides = dict(spec.sides())
    values: dict[str, pl.Series] = {}
    if EXTRA in rows.columns:
        reason = _because(reason, rows[EXTRA].is_not_null(), "a row with more values than there are columns")
    for column, place in columns.items():
        raw = rows[column]
        if place == TIME:
            values[TIME], fault = reader.moment(raw, file.kinds[column], spec)
            reason = _because(reason, fault.rows, fault.reason, raw)
            reason = _because(reason, values[TIME].is_null(), f"{column}: missing")
        elif place == REQUEST:
            values[REQUEST] = cast(raw, pl.String(), how, key=True)
            reason = _because(reason, values[REQUEST].is_null(), f"{column}: missing")
        else:
            side, _, name = place.partition(".")
            feature = sides[side][name]
            kind = _kind(feature)
            key = name in (spec.key_feature("user"), spec.key_feature("item"))
            values[place] = cast(raw, kind, how, split=getattr(feature, "split", None), key=key)
            expected = f"{place}: expected {column_types.called(spec, name, kind)}"
            reason = _because(reason, failed(raw, values[place], how), expected, raw)
    table = {name: series.alias(name) for name, series in values.items()}
    table[TIME] = table[TIME].dt.timestamp("us").alias(TIME)
    own = [pl.Series(ROW, np.arange(start + 1, start + 1 + len(rows))), reason, _key(table)]
    return pl.DataFrame([*own, *table.values()])


def _kind(feature: AnyFeature) -> pl.DataType:
    if isinstance(feature, Ids):
        return pl.List(_VALUES[feature.values])
    if isinstance(feature, Id | Kept):
        return _VALUES[feature.values]
    if isinstance(feature, Number):
        return MOMENT if feature.make in MOMENTS else pl.Float64()
    return pl.List(pl.Float64())


def _because(reason: pl.Series, rows: pl.Series, text: str, got: pl.Series | None = None) -> pl.Series:
    """The reasons, with one for rows that had none yet."""
    if not rows.any():
        return reason
    places = (rows & reason.is_null()).arg_true()
    values = (reason if got is None else got).gather(places)
    shown = [text if got is None else f"{text}, got {display(value)}" for value in values]
    return reason.scatter(places, shown)


def _key(table: Mapping[str, pl.Series]) -> pl.Series:
    """The hash of what makes rows one request: its id, or else its time and whole context."""
    if REQUEST in table:
        return pl.Series(KEY, hashing.hashed(table[REQUEST]))
    parts: list[Any] = [table[TIME]]
    for name, column in table.items():
        if name.startswith("context."):
            parts += [column.is_null(), comparable(column)]
    return pl.Series(KEY, hashing.together(parts)[0])


def comparable(column: pl.Series) -> pl.Series:
    """A column in which a list is a text, another one for each list: its values, each behind its length.

    >>> comparable(pl.Series([[3, None], [3], [], None])).to_list()
    ['1:3~', '1:3', '', None]
    """
    if not isinstance(column.dtype, pl.List):
        return column
    value = pl.element()
    text = (value.str.len_bytes().cast(pl.String) + ":" + value).fill_null("~")
    return column.cast(pl.List(pl.String)).list.eval(text).list.join("")
