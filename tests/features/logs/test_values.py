"""The conversion of a column against one value at a time, read off the documentation."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.logs.dtypes import cast, failed
from tests.reference import values as slow

WANTED = {"int": pl.Int64(), "string": pl.String(), "float": pl.Float64(), "bool": pl.Boolean()}
WORDS = ["7", " 7 ", "-7", "+7", "7.0", "7.", "7.5", "1e3", "007", "0", "-0.0", "true", "False", " TRUE ", "bob", "b b",
         "", " ", "\\N", " \\N", "nan", "NaN", "NULL", "None", "na", "N/A", "NaT", "<NA>", "3|4", "3 4", "a|b", "a| ",
         "||", "9223372036854775807", "9223372036854775808", "9223372036854775807.0",
         "1_0", "0x1", "\u0663"]  # fmt: skip
FOUND = {
    pl.String(): st.one_of(st.sampled_from(WORDS), st.text("0123456789.,|-+eE ", max_size=6)),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.UInt64(): st.integers(0, 2**64 - 1),
    pl.Float64(): st.one_of(st.sampled_from([7.0, 7.5, -0.0, 2.0**63, float("nan"), 1e300]),
                            st.integers(-99, 99).map(float)),
    pl.Boolean(): st.booleans(),
}  # fmt: skip


def said(found: pl.Series, kind: pl.DataType, **how) -> list:
    """The values as a column of that type has them; LOST for what it loses."""
    typed = cast(found, kind, **how)
    lost = failed(found, typed)
    return [slow.LOST if gone else value for value, gone in zip(typed.to_list(), lost, strict=True)]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_column_is_what_its_values_are(data):
    """Whatever is found and wanted: a column has no rule that a value alone has not."""
    kind = data.draw(st.sampled_from(list(FOUND)))
    found = data.draw(st.lists(st.one_of(st.none(), FOUND[kind]), max_size=8))
    wanted, key = data.draw(st.sampled_from(list(WANTED))), data.draw(st.booleans())
    column = pl.Series("x", found, kind)
    got = said(column, WANTED[wanted], key=key)
    expected = [slow.value(value, wanted, key=key) for value in found]
    assert [str(value) for value in got] == [str(value) for value in expected]


@pytest.mark.parametrize("split", [None, "|", ", "])
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_list_is_what_its_elements_are(split, data):
    """Text, single values and lists."""
    kind = data.draw(st.sampled_from([pl.String(), pl.Int64(), pl.Float64()]))
    wanted, nested = data.draw(st.sampled_from(["int", "string"])), data.draw(st.booleans())
    elements = st.one_of(st.none(), FOUND[kind])
    found = data.draw(
        st.lists(st.one_of(st.none(), st.lists(elements, max_size=3)) if nested else elements, max_size=6)
    )
    column = pl.Series("x", found, pl.List(kind) if nested else kind)
    got = said(column, pl.List(WANTED[wanted]), split=split)
    assert got == [slow.listed(value, wanted, split=split) for value in found]
