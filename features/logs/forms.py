"""One file of a log, opened: its form, its columns and their types.

    .parquet .arrow .feather         columns have types
    .csv .tsv                        every column is text, beside it the type that its first values look like
    .jsonl .ndjson                   one JSON object a line: numbers, text, booleans, lists and objects
    .csv.gz .jsonl.zst and so on     the same, compressed

What a CSV looks like decides only where the spec says nothing. A column with a value such as 007, or a number that does
not fit 64 bits, looks like text; words that stand for no value look like nothing. `logs.separator`, `logs.quote` and
`logs.decimal` say how CSVs are written; a byte order mark is no part of any text.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import polars as pl
import pyarrow as pa

from features.logs import list_text
from features.logs.byte_order_marks import without_mark
from features.logs.dtypes import NO_VALUE
from features.logs.logs import first_line
from features.logs.reserved import reserved
from rec.errors import DataError
from rec.spec import LogRules

EXTRA = "@extra"  # what a row of a CSV has beyond its columns
SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
PACKED = (".gz", ".zst")
_SCANS: Mapping[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": lambda path: pl.scan_parquet(path, glob=False),
    ".arrow": lambda path: pl.scan_ipc(path, glob=False),
    ".feather": lambda path: pl.scan_ipc(path, glob=False),
}
KNOWN = (".parquet", *SEPARATORS, *LINES, ".arrow", ".feather")
ENDINGS = (*KNOWN, *(form + packed for form in (*SEPARATORS, *LINES) for packed in PACKED))
_BROKEN = (pl.exceptions.PolarsError, OSError)
_INFER = 100_000  # rows of a CSV looked at to tell its types
_EXACT = 2**53  # from here on a double is not every whole number
_TAIL = 1 << 16  # bytes at the end of a CSV in which its last row is looked for
_CODE = r"^\s*[+-]?(?:0\d|\d{19})"  # a number that is none: it loses zeros, or does not fit 64 bits
_LINES = 1_000_000  # lines of a text file in which the odd one is looked for


@dataclass(frozen=True)
class LogFile:
    """A file of a log: a frame of its columns, and their types; `text` where these are what values look like.

    `rows` is None where nobody counted; `torn` says what is wrong with a file whose last row is incomplete.
    """

    path: Path
    form: str
    frame: pl.LazyFrame
    kinds: Mapping[str, pl.DataType]
    rows: int | None
    text: bool = False
    torn: str | None = None


def form_of(path: PurePath) -> tuple[str, bool]:
    """The form that a file's name says, and whether it is compressed.

    >>> form_of(Path("day.csv.gz"))
    ('.csv', True)
    """
    name = path.name.lower()
    packed = next((end for end in PACKED if name.endswith(end)), "")
    return PurePath(name.removesuffix(packed)).suffix, bool(packed)


def refuse_form(path: PurePath, where: str, name: str) -> tuple[str, bool]:
    """The form of a file that messages call `name`, and whether it is compressed; DataError for an unknown one."""
    form, packed = form_of(path)
    if form not in KNOWN or (packed and form in _SCANS):
        got = "".join(path.suffixes[-2:]) if packed else path.suffix
        raise DataError(f"{where}: {name}: expected one of {', '.join(KNOWN)}, got {got or 'no suffix'!r}")
    return form, packed


def opened(path: Path, where: str, rules: LogRules) -> LogFile | str | None:
    """A file, why it cannot be read, or None for one that holds no row; DataError for an unknown form."""
    form, packed = refuse_form(path, where, str(path))
    try:
        if path.stat().st_size == 0:
            return None
        if form in SEPARATORS:
            file = _text(path, form, rules, packed=packed)
        else:
            file = _lines(path, form) if form in LINES else _typed(path, form)
    except pl.exceptions.NoDataError:
        return None
    except _BROKEN as error:
        stray = None if packed or form in _SCANS else _odd_line(path, form, rules.quote)
        return (
            stray or f"truncated, or not a {''.join(path.suffixes[-2:]) if packed else form} file: {first_line(error)}"
        )
    if isinstance(file, str):
        return file
    ours = reserved(file.kinds)
    if ours is not None:
        return f"has a column {ours!r}, which is a name of ours; rename it"
    return None if file.rows == 0 else file


def _typed(path: Path, form: str) -> LogFile:
    frame = _SCANS[form](path)
    kinds = frame.collect_schema()
    return LogFile(path, form, frame, kinds, frame.select(pl.len()).collect().item())


def _lines(path: Path, form: str) -> LogFile:
    readable = without_mark(path)
    frame = pl.scan_ndjson(readable, infer_schema_length=None)
    kinds = frame.collect_schema()
    numbers = [name for name, kind in kinds.items() if kind.is_numeric()]
    fractions = [name for name in numbers if kinds[name].is_float()]
    try:
        largest = frame.select(pl.len().alias(EXTRA), pl.col(numbers).abs().max()).collect().row(0, named=True)
        rounded = [name for name in fractions if (largest[name] or 0) >= _EXACT]
    except pl.exceptions.ComputeError:  # true beside 1
        rounded = numbers
    if rounded:  # as they are written
        texts = dict.fromkeys(rounded, pl.String())
        frame = pl.scan_ndjson(readable, infer_schema_length=None, schema_overrides=texts)
        kinds = frame.collect_schema()
    return LogFile(path, form, frame, kinds, frame.select(pl.len()).collect().item())


def _text(path: Path, form: str, rules: LogRules, *, packed: bool) -> LogFile | str:
    """A CSV: every column as text, with its inferred type, Null of an empty one; or why its columns are not known."""
    separator = rules.separator if form == ".csv" else SEPARATORS[form]
    settings = {
        "separator": separator,
        "truncate_ragged_lines": True,
        "glob": False,
        "quote_char": rules.quote or None,
    }
    missing = list(dict.fromkeys([*rules.missing, "", *NO_VALUE]))
    looks = pl.scan_csv(path, infer_schema_length=_INFER, null_values=missing, **settings).collect_schema()
    odd = _odd_header(path, form, list(looks), separator)
    if odd is not None:
        return odd
    frame = pl.scan_csv(
        path,
        schema=dict.fromkeys([*looks, EXTRA], pl.String()),
        missing_columns="insert",
        encoding="utf8-lossy",
        **settings,
    )
    names = _unescaped(path, list(looks), separator, rules.quote)
    if names != list(looks):
        frame = frame.rename(dict(zip(looks, names, strict=True)))
    head = frame.head(_INFER).collect()
    kinds = {
        name: _look(head[name], kind, missing, rules.decimal) for name, kind in zip(names, looks.values(), strict=True)
    }
    torn = None if packed else _torn(path, separator, len(kinds))
    if torn is not None:
        frame = frame.head(frame.select(pl.len()).collect().item() - 1)
    return LogFile(path, form, frame, kinds, 0 if head.is_empty() else None, text=True, torn=torn)


def _odd_header(path: Path, form: str, names: Sequence[str], separator: str) -> str | None:
    """Why a CSV's first line does not say what its columns are."""
    with path.open("rb") as handle:
        if handle.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "is UTF-16 text: expected UTF-8"
    for name in names:
        first, again, number = name.rpartition("_duplicated_")  # as polars calls a name's second column
        if first in names and again and number.isdigit():
            return f"has two columns {first!r}: expected a name for each"
    other = next((sign for sign in ";\t|," if sign in names[0]), None) if len(names) == 1 else None
    if other is None:
        return None
    advice = f"; logs.separator = {json.dumps(other)} says that it stands between them" if form == ".csv" else ""
    return f"has one column, {names[0][:80]!r}: expected {separator!r} between columns, got {other!r}{advice}"


def _unescaped(path: Path, names: Sequence[str], separator: str, quote: str) -> list[str]:
    """The names of a CSV's columns, in which a quote that is doubled is one."""
    if not quote or not any(quote in name for name in names):
        return list(names)
    with pa.input_stream(str(path), compression="detect") as raw:  # ends with .gz or .zst
        lines = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
        read = next(csv.reader(lines, delimiter=separator, quotechar=quote))
    return read if len(read) == len(names) == len({*read}) else list(names)


def _look(values: pl.Series, kind: pl.DataType, missing: Sequence[str], decimal: str) -> pl.DataType:
    """The type that text looks like."""
    if values.null_count() == len(values) or values.is_in(missing).fill_null(value=True).all():
        return pl.Null()
    if decimal != "." and kind in (pl.String, pl.Float64):
        words = values.filter(~values.is_in(missing))
        kind = pl.Float64() if _numbers(list_text.plain_numbers(words, decimal)) else pl.String()
    if kind.is_numeric() and (kind not in (pl.Int64, pl.Float64) or values.str.contains(_CODE).any()):
        return pl.String()
    return kind if kind in (pl.Int64, pl.Float64, pl.Boolean) else pl.String()


def _numbers(words: pl.Series) -> bool:
    return bool(words.str.strip_chars().cast(pl.Float64, strict=False).is_not_null().all())


def _torn(path: Path, separator: str, columns: int) -> str | None:
    """Why the last row of a CSV is truncated: no line end, and fewer values than columns."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - _TAIL))
        last = handle.read().rpartition(b"\n")[2]
    values = last.count(separator.encode()) + 1
    if not last or b'"' in last or values >= columns:
        return None
    return f"truncated: its last row has {values} of {columns} values"


def _odd_line(path: Path, form: str, quote: str) -> str | None:
    """The first line for which a text file cannot be read, if any: no JSON, or a quote that does not close."""
    shapes: dict[str, tuple[str, int]] = {}
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(islice(lines, _LINES), start=1):
            if form in LINES and not _is_json(line):
                return f"line {number} is no JSON object: {line.strip()[:80]!r}"
            for name, shape in _shapes(line) if form in LINES else ():
                before, first = shapes.setdefault(name, (shape, number))
                if before != shape:
                    return f"{name!r} is {shape} in line {number} and {before} in line {first}: write it in one way"
            if form in SEPARATORS and quote and line.count(quote) % 2:
                return (
                    f"line {number} has a {quote} that opens and does not close: {line.strip()[:80]!r}; "
                    "if nothing in the file is quoted, say [logs] quote = ''"
                )
    return None


def _shapes(line: str) -> list[tuple[str, str]]:
    """The names in a line of JSON that have a value, and whether it is an object, a list or a single value."""
    values = json.loads(line) if line.strip() else {}
    words = {dict: "an object", list: "a list"}
    return [(name, words.get(type(value), "a single value")) for name, value in values.items() if value is not None]


def _is_json(line: str) -> bool:
    try:
        return not line.strip() or isinstance(json.loads(line), dict)
    except ValueError:
        return False
