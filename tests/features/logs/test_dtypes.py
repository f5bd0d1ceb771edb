"""One column as one type: what each value becomes, and which become nothing. The truth is written by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from features.logs.dtypes import Notation, cast, cleaned, failed, plain, supertype

INT, TEXT, REAL, BOOL = pl.Int64(), pl.String(), pl.Float64(), pl.Boolean()
MOMENT = pl.Datetime("us", "UTC")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NAN, LARGE = float("nan"), 2**63
FOUND = {
    "text": pl.Series([" 7 ", "7.0", "7.5", "bob", "", "\\N", "NaN", None, "True", "NULL"]),
    "whole": pl.Series([7, 0, -1, None], dtype=pl.Int16),
    "unsigned": pl.Series([LARGE, 7], dtype=pl.UInt64),
    "real": pl.Series([7.0, 7.5, NAN, None, 1e300]),
    "decimal": pl.Series([Decimal("7.00"), Decimal("7.50"), None], dtype=pl.Decimal(10, 2)),
    "bool": pl.Series([True, False, None]),
    "words": pl.Series(["7", "bob", None], dtype=pl.Categorical),
    "bytes": pl.Series([b"7", None]),
    "moment": pl.Series([NOON, None]),
    "day": pl.Series([date(2026, 3, 2), None]),
    "list": pl.Series([[7, None], [], None]),
    "text list": pl.Series([["7", ""], ["bob"]]),
    "array": pl.Series([[7, 8]], dtype=pl.Array(pl.Int32, 2)),
    "struct": pl.Series([{"a": 1}]),
    "nothing": pl.Series([None, None]),
}
TRUTH = [  # found, wanted, what comes of it, which are lost
    ("text", INT, [7, 7, None, None, None, None, None, None, 1, None], [2, 3]),
    ("text", TEXT, [" 7 ", "7.0", "7.5", "bob", None, None, None, None, "True", "NULL"], []),
    ("text", REAL, [7.0, 7.0, 7.5, None, None, None, None, None, 1.0, None], [3]),
    ("text", BOOL, [None, None, None, None, None, None, None, None, True, None], [0, 1, 2, 3]),
    ("whole", INT, [7, 0, -1, None], []),
    ("whole", TEXT, ["7", "0", "-1", None], []),
    ("whole", REAL, [7.0, 0.0, -1.0, None], []),
    ("whole", MOMENT, [datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC),
                       datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), None], []),
    ("whole", pl.List(INT), [[7], [0], [-1], None], []),
    ("unsigned", INT, [None, 7], [0]),
    ("unsigned", TEXT, ["9223372036854775808", "7"], []),
    ("real", INT, [7, None, None, None, None], [1, 4]),
    ("real", TEXT, ["7", "7.5", None, None, "1e+300"], []),
    ("real", REAL, [7.0, 7.5, None, None, 1e300], []),
    ("real", pl.List(TEXT), [["7"], ["7.5"], None, None, ["1e+300"]], []),
    ("decimal", INT, [7, None, None], [1]),
    ("decimal", TEXT, ["7", "7.5", None], []),
    ("decimal", REAL, [7.0, 7.5, None], []),
    ("bool", INT, [1, 0, None], []),
    ("bool", TEXT, ["true", "false", None], []),
    ("bool", REAL, [1.0, 0.0, None], []),
    ("bool", MOMENT, [None, None, None], [0, 1]),
    ("words", INT, [7, None, None], [1]),
    ("words", TEXT, ["7", "bob", None], []),
    ("bytes", TEXT, ["7", None], []),
    ("bytes", INT, [7, None], []),
    ("moment", MOMENT, [NOON, None], []),
    ("moment", INT, [None, None], [0]),
    ("moment", TEXT, ["2026-03-02T12:00:00.000000+00:00", None], []),
    ("day", MOMENT, [datetime(2026, 3, 2, tzinfo=UTC), None], []),
    ("day", TEXT, ["2026-03-02", None], []),
    ("list", pl.List(TEXT), [["7", None], [], None], []),
    ("list", INT, [None, None, None], [0, 1]),
    ("text list", pl.List(INT), [[7, None], None], [1]),
    ("array", pl.List(INT), [[7, 8]], []),
    ("struct", INT, [None], [0]),
    ("nothing", INT, [None, None], []),
    ("nothing", pl.List(INT), [None, None], []),
]  # fmt: skip


@pytest.mark.parametrize(("found", "kind", "expected", "lost"), TRUTH, ids=[f"{f} as {k}" for f, k, *_ in TRUTH])
def test_a_value_becomes_what_it_says_or_nothing(found, kind, expected, lost):
    """What is missing is null and no loss, and what cannot be said is lost: never another value."""
    got = cast(FOUND[found], kind)
    assert got.dtype == kind
    assert got.to_list() == expected
    assert failed(FOUND[found], got).arg_true().to_list() == lost


LISTS = [  # text, its separator, of text or numbers, the pieces
    ("Science Fiction|Drama", "|", TEXT, ["Science Fiction", "Drama"]),
    ("Children's|Sci-Fi|", "|", TEXT, ["Children's", "Sci-Fi"]),
    ("Action||Crime", "|", TEXT, ["Action", "Crime"]),
    ("|", "|", TEXT, []),
    ("a, b,c", ",", TEXT, ["a", "b", "c"]),
    ("a::b c", "::", TEXT, ["a", "b c"]),
    ("a  b", " ", TEXT, ["a", "b"]),
    ("Science Fiction|Drama", None, TEXT, ["Science Fiction|Drama"]),
    ('["a, b", "c\\"d", "\\u00e9"]', None, TEXT, ["a, b", 'c"d', "\u00e9"]),
    ("['Film Noir', \"Children's\"]", "|", TEXT, ["Film Noir", "Children's"]),
    ("['x' 'y']", None, TEXT, ["x", "y"]),
    ("[Science Fiction, Drama, None]", None, TEXT, ["Science Fiction", "Drama"]),
    ("[]", "|", TEXT, []),
    ("7", None, INT, [7]),
    ("3|7", None, INT, [3, 7]),
    ("[3, 7]", None, INT, [3, 7]),
    (" 3 7 ", None, INT, [3, 7]),
    ("3;7.0;", None, INT, [3, 7]),
    ("['3', '7']", None, INT, [3, 7]),
    ("3|x", None, INT, None),
    ("[0.5 2]", None, REAL, [0.5, 2.0]),
    ("", None, INT, None),
    ("\\N", "|", TEXT, None),
]


@pytest.mark.parametrize(("text", "split", "inner", "expected"), LISTS, ids=[text for text, *_ in LISTS])
def test_text_is_taken_apart_as_the_spec_says(text, split, inner, expected):
    """Brackets are known; nothing else is guessed of text, but numbers hold no separator; empty pieces are nothing."""
    values = pl.Series([text, None, text])
    assert cast(values, pl.List(inner), split=split).to_list() == [expected, None, expected]


def test_a_key_is_written_as_it_is_elsewhere():
    """12.0 is 12, since other programs write whole numbers so where some are missing; 1.10 is not."""
    keys = pl.Series(["12.0", "12", "1.10", "007", "0.0"])
    assert cast(keys, TEXT, key=True).to_list() == ["12", "12", "1.10", "007", "0"]
    assert cast(keys, TEXT).to_list() == keys.to_list()


def test_a_whole_number_with_a_fraction_of_zero_is_not_rounded():
    """A double holds no whole number beyond 2^53 for sure."""
    assert cast(pl.Series(["9007199254740993.0", "9007199254740993", "1e3"]), INT).to_list() == [2**53 + 1] * 2 + [1000]


def test_words_of_no_value_are_the_specs():
    """Blanks around them or not; without any, empty text is a value as well."""
    values = pl.Series(["NULL", " ", "", "x", "-"])
    assert cleaned(values, ("NULL", "", "-")).to_list() == [None, None, None, "x", None]
    assert cleaned(values, ()).to_list() == values.to_list()
    numbers = cast(pl.Series(["-", "7", "?"]), INT, how := Notation(missing=("-",)))
    assert numbers.to_list() == [None, 7, None]
    assert failed(pl.Series(["-", "7", "?"]), numbers, how).to_list() == [False, False, True]


def test_a_clock_without_a_zone_is_of_the_specs():
    """A datetime, a date and text; what says its zone, and counts, are not touched; an hour may not exist."""
    how = Notation(zone="Europe/Berlin")
    texts = ["2026-03-02T13:00:00", "2026-03-02 13:00", "2026-03-02T12:00:00Z", "2026-03-02T14:00:00+02:00"]
    assert cast(pl.Series([*texts, str(int(NOON.timestamp()))]), MOMENT, how).to_list() == [NOON] * 5
    naive = pl.Series([NOON.replace(tzinfo=None, hour=13), datetime(2026, 3, 29, 2, 30), datetime(2026, 10, 25, 2, 30)])  # noqa: DTZ001
    assert cast(naive, MOMENT, how).to_list() == [NOON, None, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]
    assert cast(pl.Series([date(2026, 3, 2)]), MOMENT, how)[0].hour == 23


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ([pl.Int8(), pl.Int64()], pl.Int64()),
        ([pl.Int64(), pl.Boolean()], pl.Int64()),
        ([pl.Float32(), pl.Int64()], pl.Float64()),
        ([pl.Float32()], pl.Float32()),
        ([pl.Int64(), pl.String()], pl.String()),
        ([pl.Datetime("ns"), pl.Int64()], pl.Datetime("us", "UTC")),
        ([pl.List(pl.Int8()), pl.List(pl.Int64()), pl.String()], pl.List(pl.Int64())),
        ([plain(pl.Decimal(10, 2)), pl.Int64()], pl.Float64()),
        ([plain(pl.Enum(["a"])), plain(pl.Binary())], pl.String()),
    ],
)
def test_types_have_one_that_holds_them_all(kinds, wanted):
    """Text is what everything can be."""
    assert supertype(list(dict.fromkeys(kinds))) == wanted
