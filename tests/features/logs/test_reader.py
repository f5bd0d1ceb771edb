"""Pieces as typed rows: one type per column, moments parsed, and each row that cannot be used counted once."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from features.logs import reader
from features.logs.logs import Logs, Piece
from features.logs.reader import BadRows, batches, findings, merge, plan
from features.logs.timestamps import MOMENT, TIME
from rec.errors import DataError
from rec.spec import Spec, parse
from tests.features.reads import whole

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = int(NOON.timestamp())


def spec(*, features: str = "", user: str = "int", more: str = "") -> Spec:
    """Users who are shown items at moments, and more candidate features."""
    return parse(
        f"""
        name = "x"
        keys = {{ user = "user", item = "item", time = "time", time_unit = "auto" }}
        {more}
        [context]
        user = {{ kind = "id", values = "{user}" }}
        [candidates]
        item = {{ kind = "id" }}
        {features}
        [tasks]
        a = {{ label = "a" }}
        """
    )


def piece(name: str = "a", **columns: list) -> Piece:
    """A user and an item at noon, with other columns as they are given."""
    rows = len(next(iter(columns.values()))) if columns else 1
    table = {"user": [1] * rows, "item": [10] * rows, "time": [SECOND] * rows, **columns}
    return Piece(pl.LazyFrame(table, strict=False), name)


def text(name: str = "a.csv", looks: dict | None = None, **columns: list) -> Piece:
    """The same as a CSV gives it."""
    texts = piece(name, **columns).frame.with_columns(pl.all().cast(pl.String))
    kinds = {column: pl.Int64() for column in texts.collect_schema().names()}
    return Piece(texts, name, kinds={**kinds, **(looks or {})}, text=True)


def test_rows_have_their_columns_and_their_moment():
    """What is asked for, keys.time among it, and TIME."""
    read = whole(spec(), [piece(price=[1.5])], columns=["user", "item"])
    assert read.rows.columns == ["user", "item", "time", TIME]
    assert read.rows[TIME].to_list() == [NOON]
    assert read.rows.schema[TIME] == MOMENT
    assert read.rows["time"].to_list() == [SECOND]
    assert (read.bad.rows, read.bad.count) == (1, 0)


def test_logs_without_a_clock_have_no_moment():
    """Nobody asks for one."""
    timeless = parse('name = "x"\ntasks = { a = { label = "a" } }')
    assert whole(timeless, [piece()], columns=["user"]).rows.columns == ["user"]


@pytest.mark.parametrize(
    ("first", "second", "kind", "values"),
    [
        (pl.Series([1], dtype=pl.Int16), pl.Series([2], dtype=pl.Int64), pl.Int64, [1, 2]),
        (pl.Series([1]), pl.Series([0.5]), pl.Float64, [1.0, 0.5]),
        (pl.Series([True]), pl.Series([0]), pl.Int64, [1, 0]),
        (pl.Series([1]), pl.Series(["x"]), pl.String, ["1", "x"]),
        (pl.Series([None]), pl.Series([3]), pl.Int64, [None, 3]),
        (pl.Series([NOON]), pl.Series([SECOND]), MOMENT, [NOON, NOON]),
        (pl.Series([NOON]), pl.Series(["2026-03-02T20:00:00+08:00"]), MOMENT, [NOON, NOON]),
        (pl.Series([[1]]), pl.Series([["x"]]), pl.List(pl.String), [["1"], ["x"]]),
        (pl.Series([[1]]), pl.Series(["[3, 4]"]), pl.List(pl.Int64), [[1], [3, 4]]),
    ],
)
def test_files_of_different_types_get_one(first, second, kind, values):
    """The one that holds both: the wider number, a timestamp, a list, or else text."""
    rows = whole(spec(), [piece(x=first), piece(x=second)]).rows
    assert rows.schema["x"] == kind
    assert rows["x"].to_list() == values


@pytest.mark.parametrize(
    ("feature", "kind", "values"),
    [
        ('{ kind = "id" }', pl.Int64, [7, 8]),
        ('{ kind = "id", values = "string" }', pl.String, ["7", "8"]),
        ('{ kind = "kept", values = "float" }', pl.Float64, [7.0, 8.0]),
        ('{ kind = "number" }', pl.Float64, [7.0, 8.0]),
    ],
)
def test_a_feature_says_what_a_mixed_column_holds(feature, kind, values):
    """A number in one file and text in another."""
    rows = whole(spec(features=f"x = {feature}"), [piece(x=[7]), piece(x=["8"])]).rows
    assert rows.schema["x"] == kind
    assert rows["x"].to_list() == values


def test_what_a_csv_looks_like_may_be_wrong():
    """What a feature says counts more than the first rows."""
    words = text(x=["7", "8"])
    assert whole(spec(features='x = { kind = "id", values = "string" }'), [words]).rows["x"].to_list() == ["7", "8"]
    assert whole(spec(), [words]).rows["x"].to_list() == [7, 8]
    assert whole(spec(), [text(x=["TRUE", "false"], looks={"x": pl.Boolean()})]).rows["x"].to_list() == [True, False]


def test_keys_are_int64_or_text():
    """Whatever width or form they are stored in; whole numbers stored as floats are whole."""
    read = whole(spec(), [piece(user=pl.Series([1.0, None]), item=pl.Series([3, 4], dtype=pl.UInt8))]).rows
    assert read.select("user", "item").rows() == [(1, 3), (None, 4)]
    assert read.schema["user"] == read.schema["item"] == pl.Int64
    words = whole(spec(user="string"), [piece(user=pl.Series(["u"], dtype=pl.Categorical))]).rows["user"]
    assert (words.dtype, words.to_list()) == (pl.String, ["u"])


def test_types_may_be_decided_elsewhere():
    """Events' keys are of the type that they have among the impressions."""
    read = whole(spec(), [piece(user=["7"])], kinds={"user": pl.Int64()}).rows
    assert read["user"].to_list() == [7]


def test_the_moment_of_an_outcome_is_a_moment():
    """Text in `a_time` beside `a`; a number there may be a duration."""
    read = whole(spec(), [text(a=[1], a_time=["2026-03-02T12:00:00"], looks={"a_time": pl.String()})]).rows
    assert read["a_time"].to_list() == [NOON]
    assert whole(spec(), [text(a=[1], a_time=["41"])]).rows["a_time"].to_list() == [41]


def test_a_moment_in_text_keeps_its_fraction():
    """Of a second, written as a number."""
    read = whole(spec(), [text(time=[f"{SECOND}.25"], looks={"time": pl.Float64()})]).rows
    assert read[TIME].dt.timestamp("ms").to_list() == [SECOND * 1000 + 250]


def test_a_large_piece_comes_in_batches(monkeypatch):
    """In order, and of a bounded size."""
    monkeypatch.setattr(reader, "BATCH", 10)
    reading = plan(spec(), Logs.whole(piece(item=list(range(25))).frame).impressions, ["item"], "impressions")
    rows = [block["item"].to_list() for block, _ in batches(reading, 0, spec(), latest=None)]
    assert [item for ids in rows for item in ids] == list(range(25))
    assert max(map(len, rows)) == 10


def test_a_row_is_bad_once():
    """For the first thing that is wrong with it."""
    read = whole(spec(), [text(user=["bob", "1", "1"], item=[None, "x", "3"])])
    assert read.rows["item"].to_list() == [3]
    assert {reason: count for reason, (count, _) in read.bad.reasons.items()} == {
        "user: expected an id (int)": 1,
        "item: expected an id (int)": 1,
    }


def test_bad_rows_of_batches_add_up():
    """With the first three examples."""
    parts = [BadRows(10, {"a": (2, ["1", "2"])}), BadRows(5, {"b": (1, ["3"]), "a": (3, ["4", "5", "6"])})]
    merged = merge(parts)
    assert (merged.rows, merged.count) == (15, 6)
    assert merged.reasons == {"a": (5, ["1", "2", "4"]), "b": (1, ["3"])}


def test_bad_rows_within_what_is_allowed_pass():
    """And say so by reason; more, all reasons together, do not."""
    few = BadRows(1000, {"a": (6, ["x"]), "b": (4, ["y"])})
    assert [
        (finding.passed, finding.count, finding.total, finding.examples, finding.text)
        for finding in findings(few, spec(), "w")
    ] == [
        (True, 6, 1000, ("x",), "a; left out"),
        (True, 4, 1000, ("y",), "b; left out"),
    ]
    few.add("b", 1, [])
    text = "; left out; 1.10% of the rows cannot be used, logs.bad_rows allows 1.00%"
    assert [(finding.passed, finding.text) for finding in findings(few, spec(), "w")] == [
        (False, "a" + text),
        (False, "b" + text),
    ]
    assert all(finding.passed for finding in findings(few, spec(more="logs.bad_rows = 0.02"), "w"))
    assert [(finding.passed, finding.text) for finding in findings(BadRows(3), spec(), "w")] == [
        (True, "rows that cannot be used")
    ]


def test_keys_are_one_value_per_row():
    """A list is none."""
    with pytest.raises(DataError, match=r"impressions: column 'user': expected one value per row, got List\(Int64\)"):
        plan(spec(), [piece(user=[[1]])], ["user"], "impressions")
