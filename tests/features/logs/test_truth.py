"""One table of what is found and what is asked (tests/features/logs/truth.py), at every door that values come in by."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
import pytest

from features import sources
from features.logs.files import scan
from features.logs.side_files import typed
from features.pipeline import build
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import Spec, parse
from serving.online.parse import RequestParser
from serving.online.problems import RequestError
from serving.request_files import flat
from tests.features.logs.truth import ASKED, FOUND, LOST, NOON, TRUTH, sent

TEXTS = [found for found, kind in FOUND.items() if kind == pl.String]
FORMS = {  # and what they can hold
    "parquet": list(FOUND),
    "csv": TEXTS,
    "jsonl": (PLAIN := [*TEXTS, "whole", "unsigned", "real", "bool", "list", "list of text"]),
}
HELD = FORMS | {"json": PLAIN}
SPEC = """
name = "truth"
keys = {{ user = "user", item = "item", time = "time" }}
split = {{ validation = 2026-03-05, test = 2026-03-06 }}
logs.bad_rows = 1.0
source = {{ {source} }}
[context]
user = {{ kind = "id" }}
{context}
[candidates]
item = {{ kind = "id" }}
{candidates}
[tasks]
a = {{ label = "a" }}
"""


class Cell(NamedTuple):
    """A value of a type, asked as another, and what is right."""

    number: int
    found: str
    asked: str
    value: object
    right: object


def never(kind: pl.DataType, asked: str) -> bool:
    """Whether a typed column is refused as a whole: lists as single values, and timestamps as numbers."""
    as_number = asked in ("int", "number", "ints")
    return (kind.is_nested() and '"ids"' not in ASKED[asked]) or (kind.is_temporal() and as_number)


def pairs(form: str) -> list[tuple[str, str]]:
    """What a form can hold, as what can be asked of it."""
    return [(f, a) for f in HELD[form] for a in ASKED if form == "json" or not never(FOUND[f], a)]


@cache
def cells(form: str) -> list[Cell]:
    """Of all that a form can hold."""
    places = {asked: place for place, asked in enumerate(ASKED)}
    rows = [
        (found, asked, value, right[places[asked]]) for found, asked in pairs(form) for value, right in TRUTH[found]
    ]
    return [Cell(number, *row) for number, row in enumerate(rows)]


def name(door: str, found: str, asked: str) -> str:
    """The column of the values of a type that are asked as another, and its feature."""
    return f"{door}_{found}_{asked}".replace(" ", "_")


def features(door: str, form: str) -> str:
    """One for every column of a table."""
    return "\n".join(f"{name(door, f, a)} = {{ {ASKED[a]} }}" for f, a in pairs(form))


def table(door: str, form: str, chosen: list[Cell]) -> pl.DataFrame:
    """A row for each cell, in whose column alone its value is."""
    numbers = [cell.number for cell in chosen]
    own = {"user": numbers, "item": numbers, "time": [NOON] * len(chosen), "a": [0] * len(chosen)}
    columns = [pl.Series(key, values) for key, values in own.items()]
    for pair in pairs(form):
        held = [cell.value if cell[1:3] == pair else None for cell in chosen]
        columns.append(pl.Series(name(door, *pair), held, FOUND[pair[0]]))
    return pl.DataFrame(columns)


def write(rows: pl.DataFrame, path: Path) -> None:
    """In the form that the file's name says."""
    writers = {
        "parquet": rows.write_parquet,
        "arrow": rows.write_ipc,
        "csv": rows.write_csv,
        "jsonl": rows.write_ndjson,
    }
    writers[path.suffix[1:]](path)


def values(rows: pl.DataFrame, door: str, form: str) -> dict[int, object]:
    """What came of each cell, by its number in `item`; LOST where its row is none."""
    numbers = {number: place for place, number in enumerate(rows["item"].to_list())}
    columns = {column: rows[column].to_list() for column in rows.columns}
    return {
        cell.number: columns[name(door, cell.found, cell.asked)][numbers[cell.number]]
        if cell.number in numbers
        else LOST
        for cell in cells(form)
        if name(door, cell.found, cell.asked) in columns
    }


def candidates(spec: Spec, folder: Path) -> pl.DataFrame:
    """Those of a build, each with its context."""
    build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent())
    rows = pl.concat(pl.read_ipc(path) for path in sorted((folder / "data").glob("*/part-*.arrow")))
    return rows.explode("candidates").unnest("context").unnest("candidates")


@cache
def built(form: str) -> pl.DataFrame:
    """The candidates of a build: of the log as it is, and of tables of users and items without what is refused."""
    source = f'kind = "impressions", files = "log.{form}", users = "users.{form}", items = "items.{form}"'
    of_items = features("impressions", form) + "\n" + features("items", form)
    spec = parse(SPEC.format(source=source, context=features("users", form), candidates=of_items))
    right = [cell for cell in cells(form) if cell.right != LOST]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(table("impressions", form, cells(form)), folder / f"log.{form}")
        write(table("users", form, right).drop("item", "time", "a"), folder / f"users.{form}")
        write(table("items", form, right).drop("user", "time", "a"), folder / f"items.{form}")
        return candidates(spec, folder)


@cache
def happened(form: str) -> pl.DataFrame:
    """The candidates of a build of a log of events, whose values are carried along; those without an event left out."""
    said = {"int": "int", "text": "string", "number": "float"}
    chosen = [pair for pair in pairs(form) if pair[1] in said]
    made = ", ".join(f'{(column := name("events", *pair))} = "{column}"' for pair in chosen)
    events = f'events.happened = {{ files = "happened.{form}", values = {{ {made} }}, unmatched = 1.0 }}'
    carried = "\n".join(f'{name("events", f, a)} = {{ kind = "kept", values = "{said[a]}" }}' for f, a in chosen)
    source = f'kind = "events", impressions = "log.{form}", {events}'
    spec = parse(SPEC.format(source=source, context="", candidates=carried).replace('"a"', '"happened"'))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = table("events", form, [cell for cell in cells(form) if cell.asked in said])
        write(rows.select("user", "item", "time"), folder / f"log.{form}")
        write(rows.drop("a"), folder / f"happened.{form}")
        return candidates(spec, folder).filter(pl.col("a") == 1)


def requests(form: str) -> Spec:
    """A spec of requests that send the values."""
    return parse(SPEC.format(source='kind = "impressions", files = ""', context="", candidates=features("sent", form)))


def flat_rows(form: str) -> pl.DataFrame:
    """Rows to be scored; a request of its own each."""
    spec = requests(form)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / f"rows.{form}"
        write(table("sent", form, cells(form)).drop("a"), path)
        file, columns = flat.open_file(path, spec)
        assert file is not None
        rows = pl.concat(flat.typed(file, columns, spec))
    return rows.filter(pl.col(flat.REASON).is_null()).rename(lambda column: column.removeprefix("candidates."))


def posted() -> dict[int, object]:
    """A request for each cell."""
    parser, out = RequestParser(requests("json")), dict[int, object]()
    for cell in cells("json"):
        feature = name("sent", cell.found, cell.asked)
        candidate = {"item": 1, feature: None if cell.value != cell.value else cell.value}  # NaN
        body = {"time": NOON.isoformat(), "context": {}, "candidates": [candidate]}
        try:
            request = parser.parse(json.dumps(body).encode(), None, lambda: "r")
            out[cell.number] = request.candidates[feature].values.to_pylist()[0]
        except RequestError:
            out[cell.number] = LOST
    return out


DOORS = {
    "impressions": lambda form: values(built(form), "impressions", form),
    "events": lambda form: values(happened(form), "events", form),
    "flat rows": lambda form: values(flat_rows(form), "sent", form),
}


def wrong(got: dict[int, object], form: str, right: Callable[[Cell], object]) -> list[str]:
    """The cells where something else came."""
    return [
        f"{cell.found} {cell.value!r} as {cell.asked}: expected {right(cell)!r}, got {got[cell.number]!r}"
        for cell in cells(form)
        if cell.number in got and not same(got[cell.number], right(cell))
    ]


def same(got: object, right: object) -> bool:
    """Numbers to the precision of a float32; of a list, none and an empty one are the same."""
    if isinstance(right, float) and isinstance(got, float):
        return got == pytest.approx(right, rel=1e-6)
    if isinstance(right, list):
        return got != LOST and [element for element in got or [] if element is not None] == right  # type: ignore[union-attr]
    if isinstance(got, datetime) and got.tzinfo is None:
        got = got.replace(tzinfo=UTC)
    return got == right and type(got) is type(right)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_a_value_is_the_same_by_every_door(door, form):
    """Impressions, events and rows to be scored, in every form."""
    assert wrong(DOORS[door](form), form, lambda cell: cell.right) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", ["users", "items"])
def test_a_value_of_a_side_table_is_the_same(door, form):
    """Where its row can be used: a table of users or items is refused for one that cannot."""
    rows, numbers = built(form), set(built(form)["item"])
    got = values(rows, door, form)
    assert wrong(got, form, lambda cell: cell.right if cell.number in numbers else LOST) == []


def test_a_request_sends_the_same_values():
    """But text is no number there."""
    assert wrong(posted(), "json", lambda cell: sent(cell.value, cell.asked, cell.right)) == []


@pytest.mark.parametrize(
    ("found", "asked"), [("list", "int"), ("list", "number"), ("moment", "number"), ("day", "int")]
)
def test_a_column_that_is_never_what_is_asked_is_refused(tmp_path, found, asked):
    """As a whole: it is no row's fault."""
    values = [value for value, _ in TRUTH[found]]
    own = {"user": [1] * len(values), "item": range(len(values)), "time": [NOON] * len(values), "a": [0] * len(values)}
    pl.DataFrame(own | {"x": pl.Series(values, dtype=FOUND[found])}).write_parquet(tmp_path / "log.parquet")
    source = 'kind = "impressions", files = "log.parquet"'
    spec = parse(SPEC.format(source=source, context="", candidates=f"x = {{ {ASKED[asked]} }}"))
    with pytest.raises((SpecError, DataError), match=r"candidates.x: expected .*, got "):
        build.build(spec, sources.read(spec, tmp_path), tmp_path / "data", progress=Silent())


@pytest.mark.parametrize("form", FORMS)
def test_a_side_table_is_refused_for_a_value_that_is_lost(tmp_path, form):
    """No row of it may be left out: file, column, what was expected and what came are named."""
    spec = parse(SPEC.format(source='kind = "impressions", files = ""', context="", candidates=features("items", form)))
    for cell in cells(form):
        if cell.right == LOST:
            column = name("items", cell.found, cell.asked)
            write(table("items", form, [cell]).select("item", column), tmp_path / f"items.{form}")
            pieces, _ = scan(f"items.{form}", tmp_path, "source.items", spec.logs)
            with pytest.raises(DataError, match=rf"items: items.{form}: column '{column}': expected .*, got "):
                typed(spec, "items", pieces, {"item": "item", column: column}, {})
