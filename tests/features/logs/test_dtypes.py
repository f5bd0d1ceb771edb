"""One column as one type: what each value becomes, and which become nothing."""

from __future__ import annotations

import polars as pl
import pytest

from features.logs.dtypes import cast, failed, supertype


@pytest.mark.parametrize(
    ("values", "kind", "expected", "lost"),
    [
        (pl.Series([" 7 ", "7.0", "7.5", "bob", "", None]), pl.Int64(), [7, 7, None, None, None, None], [2, 3]),
        (pl.Series([7.0, 7.5, float("nan"), None]), pl.Int64(), [7, None, None, None], [1]),
        (pl.Series([2**63, 1], dtype=pl.UInt64), pl.Int64(), [None, 1], [0]),
        (pl.Series(["1.5", "x", " "]), pl.Float64(), [1.5, None, None], [1]),
        (pl.Series([7.0, 7.5, None]), pl.String(), ["7", "7.5", None], []),
        (pl.Series([7, None]), pl.String(), ["7", None], []),
        (pl.Series([" True", "0", "maybe"]), pl.Boolean(), [True, False, None], [2]),
        (pl.Series([[1]]), pl.Int64(), [None], [0]),
        (pl.Series(["3|4", None, ""]), pl.List(pl.Int64()), [[3, 4], None, []], []),
        (pl.Series([5]), pl.List(pl.Int64()), [None], [0]),
        (pl.Series([None, None]), pl.Int64(), [None, None], []),
    ],
)
def test_a_value_becomes_what_it_says_or_nothing(values, kind, expected, lost):
    """Empty text and NaN are nothing, and no loss."""
    got = cast(values, kind, unit="s")
    assert got.dtype == kind
    assert got.to_list() == expected
    assert failed(values, got).arg_true().to_list() == lost


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
    ],
)
def test_types_have_one_that_holds_them_all(kinds, wanted):
    """Text is what everything can be."""
    assert supertype(kinds) == wanted
