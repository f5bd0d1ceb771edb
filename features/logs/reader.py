"""A log's pieces as typed rows, in batches: the validated input of every later step.

    plan      reads only the schemas: which columns, of which types, in which pieces
    batches   reads one piece: keys as int64 or text, timestamps parsed, unusable rows dropped and counted

A column has one type for all files: the one its feature declares; otherwise the wider of two numbers, timestamps, or
text (features/logs/column_types.py). A row is unusable if a value cannot be of that type (features/logs/dtypes.py), if
it has no item, timestamp or request, or if its timestamp is in the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from features.logs import column_types, timestamps, unlabelled
from features.logs.dtypes import Fault, Notation, cast, cleaned, failed
from features.logs.forms import EXTRA
from features.logs.logs import BAD, Finding, Piece, first_line, kinds_of
from features.logs.timestamps import MOMENT, TIME
from features.logs.unlabelled import UNLABELLED
from rec.errors import DataError, nearest
from rec.spec import Spec

BATCH = 500_000  # rows read at once, about
EXAMPLES = 3


@dataclass
class BadRows:
    """Counts of unusable rows: rows read, and per reason the number and the first few of them; and of doubtful ones."""

    rows: int = 0
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict[str, tuple[int, list[str]]])
    doubts: dict[str, tuple[int, list[str]]] = field(default_factory=dict[str, tuple[int, list[str]]])

    @property
    def count(self) -> int:
        """The number of unusable rows."""
        return sum(count for count, _ in self.reasons.values())

    def add(self, reason: str, count: int, examples: Sequence[str]) -> None:
        """Add unusable rows of one reason."""
        before, shown = self.reasons.get(reason, (0, []))
        self.reasons[reason] = before + count, [*shown, *examples][:EXAMPLES]

    def doubt(self, reason: str, count: int, examples: Sequence[str]) -> None:
        """Add rows that are used, and may be meant otherwise."""
        before, shown = self.doubts.get(reason, (0, []))
        self.doubts[reason] = before + count, [*shown, *examples][:EXAMPLES]


@dataclass(frozen=True)
class ReadPlan:
    """How a log is read: its usable pieces, the columns and their types, and findings on files.

    `moments` are the columns that hold outcomes' timestamps, and whether the spec names them: then each value is one.
    `lacking` are pieces, by name, without columns of labels: a bit for each label that their rows do not have.
    """

    pieces: tuple[Piece, ...]
    kinds: Mapping[str, pl.DataType]
    where: str
    findings: tuple[Finding, ...] = ()
    moments: Mapping[str, bool] = field(default_factory=dict[str, bool])
    lacking: Mapping[str, int] = field(default_factory=dict[str, int])


def plan(
    spec: Spec,
    pieces: Sequence[Piece],
    columns: Sequence[str],
    where: str,
    *,
    kinds: Mapping[str, pl.DataType] | None = None,
    moments: Mapping[str, bool] | None = None,
    of_labels: Mapping[str, int] | None = None,
) -> ReadPlan:
    """The plan for reading `columns` and keys.time; `moments` are those of outcomes' timestamps.

    `of_labels` are columns that a piece may lack, each with the bits of the labels that are not known then.

    `kinds` are given types: keys of events have the types of the impressions' keys. A piece that lacks a column is
    skipped and reported; DataError if none is left.
    """
    time = [spec.keys.time] if spec.keys.time else []
    names = list(dict.fromkeys([*columns, *time]))
    usable, lacking = [], []
    for piece in pieces:
        has = kinds_of(piece)
        missing = [column for column in names if column not in has and column not in (of_labels or {})]
        if missing:
            lacking.append((piece, f"{piece.name}: no column {missing[0]!r}{nearest(missing[0], has)}"))
        else:
            usable.append(piece)
    if not usable:
        raise DataError(f"{where}: {lacking[0][1]}")
    types = dict(kinds or {})
    for column in names:
        if column not in types:
            has = [(kinds_of(piece)[column], piece.text) for piece in usable if column in kinds_of(piece)]
            zoned = column in (moments or {}) and not all(isinstance(kind, pl.Datetime) for kind, _ in has)
            named = moments is None and column.endswith("_time") and column.removesuffix("_time") in names
            zoned |= named and any(kind == pl.String for kind, _ in has)
            types[column] = MOMENT if zoned else column_types.kind_of(spec, column, has, where)
    types = {column: types[column] for column in names}
    unknown = unlabelled.pieces_without(usable, of_labels or {})
    findings = [
        *unlabelled.left_out(spec, where, lacking, pieces),
        *unlabelled.findings(where, unknown, usable, of_labels or {}),
    ]
    return ReadPlan(tuple(usable), types, where, tuple(findings), moments or {}, unknown)


def batches(reading: ReadPlan, index: int, spec: Spec, *, latest: int | None) -> Iterator[tuple[pl.DataFrame, BadRows]]:
    """The rows of piece `index`: the planned columns, and TIME (timestamp[us, UTC]) where the spec names keys.time.

    `latest` is the timestamp (microseconds) after which a row is in the future and unusable. If a file is broken, the
    rows read so far are kept, and the rest count as bad.
    """
    piece = reading.pieces[index]
    read = 0
    try:
        for rows in _raw(piece, list(reading.kinds)):
            read += len(rows)
            yield _usable(rows, piece, reading, spec, latest)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = f"{piece.name}: cannot be read beyond row {read}: {first_line(error)}"
        yield _broken(reading, spec, reason, max(1, piece.rows - read))
    if piece.torn is not None:
        yield _broken(reading, spec, f"{piece.name}: {piece.torn}", 1)


def merge(parts: Sequence[BadRows]) -> BadRows:
    """The bad rows of several batches as one; examples are those of the first."""
    whole = BadRows()
    for bad in parts:
        whole.rows += bad.rows
        for reason, (count, examples) in bad.reasons.items():
            whole.add(reason, count, examples)
        for reason, (count, examples) in bad.doubts.items():
            whole.doubt(reason, count, examples)
    return whole


def findings(bad: BadRows, spec: Spec, where: str) -> list[Finding]:
    """One finding per reason; all fail if the share of bad rows, all reasons together, is above logs.bad_rows."""
    share = bad.count / max(1, bad.rows)
    fine = share <= spec.logs.bad_rows
    doubts = [
        Finding(where, True, count, bad.rows, tuple(examples), reason, "warn")
        for reason, (count, examples) in bad.doubts.items()
    ]
    if not bad.count:
        return [Finding(where, True, 0, bad.rows, (), "rows that cannot be used"), *doubts]
    limit = "" if fine else f"; {share:.2%} of the rows cannot be used, logs.bad_rows allows {spec.logs.bad_rows:.2%}"
    return [
        Finding(where, fine, count, bad.rows, tuple(examples), f"{reason}; left out{limit}", "warn" if fine else "fail")
        for reason, (count, examples) in bad.reasons.items()
    ] + doubts


def _raw(piece: Piece, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows of a piece in batches, with the wanted columns, unvalidated."""
    has = piece.frame.collect_schema().names()
    frame = piece.frame.select(c for c in has if c in columns or c in piece.reads or c == EXTRA)
    for rows in frame.collect_batches(chunk_size=BATCH, maintain_order=True):
        yield rows if piece.turn is None else piece.turn(rows)


def _usable(
    rows: pl.DataFrame, piece: Piece, reading: ReadPlan, spec: Spec, latest: int | None
) -> tuple[pl.DataFrame, BadRows]:
    keys = spec.keys
    columns: dict[str, pl.Series] = {}
    faults, doubts = list(_already(rows)), list[Fault]()
    for column, kind in reading.kinds.items():
        if column not in rows.columns:  # of a label
            columns[column] = pl.Series(column, [None], kind).new_from_index(0, len(rows))
        elif column == keys.time:
            columns[TIME], fault = moment(rows[column], kinds_of(piece)[column], spec)
            faults.append(fault)
            columns[column] = columns[TIME].alias(column) if kind == MOMENT else cast(rows[column], kind)
        elif column in reading.moments and kind == MOMENT:
            looks, named = kinds_of(piece)[column], reading.moments[column]
            columns[column], fault = _outcome_moment(rows[column], looks, spec, named=named)
            faults.append(fault)
        else:
            columns[column], fault, own_doubts = _typed(rows[column], kind, spec)
            faults.append(fault)
            doubts += own_doubts
    if latest is not None and TIME in columns:
        late = (columns[TIME].dt.timestamp("us") > latest).fill_null(value=False)
        faults.append(Fault(f"{keys.time}: in the future: a clock is wrong", late))
    request = keys.request if reading.where == "impressions" else None  # an event need not say of which it is
    needed = [key for key in (keys.item, keys.time, request) if key is not None and key in columns]
    missing = [(key, columns[TIME if key == keys.time else key]) for key in needed]
    faults += [Fault(f"{key}: missing", values.is_null()) for key, values in missing if values.null_count()]
    bad = BadRows(len(rows))
    for doubt in doubts:
        bad.doubt(doubt.reason, int(doubt.rows.sum()), _examples(rows, doubt.rows, doubt.got, spec, piece.name))
    lost = _count(rows, faults, bad, spec, piece.name)
    if reading.lacking:
        bits = reading.lacking.get(piece.name, 0)
        columns[UNLABELLED] = pl.Series(UNLABELLED, [bits], pl.Int64).new_from_index(0, len(rows))
    order = [*reading.kinds, *([TIME] if TIME in columns else []), *([UNLABELLED] if reading.lacking else [])]
    table = pl.DataFrame([columns[column].alias(column) for column in order])
    return (table if lost is None else table.filter(~lost)), bad


def _typed(values: pl.Series, kind: pl.DataType, spec: Spec) -> tuple[pl.Series, Fault, list[Fault]]:
    """A column as its type, the rows where that fails, and what may be meant otherwise."""
    column, keys, how = values.name, spec.keys, Notation.of(spec)
    split = column_types.split_of(spec, column)
    typed = cast(values, kind, how, split=split, key=column in (keys.user, keys.item, keys.request, keys.session))
    reason = f"{column}: expected {column_types.called(spec, column, kind)}"
    if kind == pl.Int64 and values.dtype.is_integer():
        reason = f'{column}: does not fit 64 bits with a sign; say values = "string" to read it as text'
    return typed, Fault(reason, failed(values, typed, how), values), list(column_types.doubts(values, typed, split))


def _outcome_moment(values: pl.Series, looks: pl.DataType, spec: Spec, *, named: bool) -> tuple[pl.Series, Fault]:
    """The timestamps of outcomes; where the spec names the column, the rows where that fails."""
    keys, how = spec.keys, Notation.of(spec)
    raw = cleaned(values, how.missing)
    times = timestamps.of_outcomes(raw, looks, keys.time_unit, keys.time_format, keys.time_zone)
    lost = failed(raw, times, how) if named else pl.Series([False]).new_from_index(0, len(raw))
    first = raw.cast(looks, strict=False).filter(lost).first() if lost.any() and looks.is_numeric() else None
    kind = pl.String() if first is None else looks
    reason = f"{values.name}: {timestamps.wrong(kind, first, keys.time_unit, keys.time_format)}"
    return times, Fault(reason, lost, values)


def _already(rows: pl.DataFrame) -> Iterator[Fault]:
    """Faults of rows before values are cast."""
    if EXTRA in rows.columns:
        yield Fault("a row with more values than there are columns", rows[EXTRA].is_not_null())
    if BAD in rows.columns:
        for reason in rows[BAD].drop_nulls().unique(maintain_order=True):
            yield Fault(reason, (rows[BAD] == reason).fill_null(value=False))


def moment(values: pl.Series, looks: pl.DataType, spec: Spec) -> tuple[pl.Series, Fault]:
    """keys.time parsed, and the rows where that fails; `looks` is the inferred type of text."""
    keys, where, how = spec.keys, f"keys.time: column {spec.keys.time!r}", Notation.of(spec)
    values = numbers = cleaned(values, how.missing)
    if values.dtype == pl.String and looks.is_numeric() and keys.time_format is None:
        numbers = cleaned(values.cast(looks, strict=False))
    times = timestamps.parse(numbers, unit=keys.time_unit, where=where, form=keys.time_format, zone=keys.time_zone)
    if numbers is not values and times.null_count() > values.null_count():
        times = times.fill_null(timestamps.parse(values, unit=keys.time_unit, where=where, zone=keys.time_zone))
    lost = failed(values, times, how)
    first = numbers.filter(lost).first() if lost.any() else None
    return times, Fault(
        f"{values.name}: {timestamps.wrong(numbers.dtype, first, keys.time_unit, keys.time_format)}", lost, values
    )


def _count(rows: pl.DataFrame, faults: Sequence[Fault], bad: BadRows, spec: Spec, name: str) -> pl.Series | None:
    """The unusable rows, each counted for the first of its faults; None if there are none."""
    lost: pl.Series | None = None
    for fault in faults:
        new = fault.rows if lost is None else fault.rows & ~lost
        if new.any():
            bad.add(fault.reason, int(new.sum()), _examples(rows, new, fault.got, spec, name))
            lost = new if lost is None else lost | new
    return lost


def _examples(rows: pl.DataFrame, which: pl.Series, got: pl.Series | None, spec: Spec, name: str) -> list[str]:
    """Examples of rows by their keys: `got 'bob': item_id=3 time=10 (day-1.csv)`."""
    places = which.arg_true().head(EXAMPLES)
    keys = (spec.keys.request, spec.keys.user, spec.keys.item, spec.keys.time)
    named = [c for c in dict.fromkeys(keys) if c in rows.columns] or rows.columns[:EXAMPLES]
    shown = rows.select(named)[places]
    texts = [" ".join(f"{key}={value}" for key, value in row.items()) for row in shown.iter_rows(named=True)]
    prefixes = [""] * len(texts) if got is None else [f"got {value!r}: " for value in got.gather(places)]
    return [f"{what}{text} ({name})" for what, text in zip(prefixes, texts, strict=True)]


def _broken(reading: ReadPlan, spec: Spec, reason: str, count: int) -> tuple[pl.DataFrame, BadRows]:
    """No rows, and the reason why the rest of a broken file is lost."""
    time = ({TIME: MOMENT} if spec.keys.time else {}) | ({UNLABELLED: pl.Int64()} if reading.lacking else {})
    bad = BadRows(count)
    bad.add(reason, count, [])
    return pl.DataFrame(schema={**reading.kinds, **time}), bad
