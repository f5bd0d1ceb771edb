"""Ids to rows: the same on every machine, unknown is 0."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import encoders
from rec.data.encoders import Buckets, Hash, Vocabulary, as_ids, counted, vocabulary_of
from rec.errors import BundleError, DataError
from rec.spec import parse

ints = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 50)
words = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
columns = st.lists(ints).map(lambda v: pa.array(v, pa.int64())) | st.lists(words).map(
    lambda v: pa.array(v, pa.string())
)


@given(columns, st.integers(1, 3))
def test_a_vocabulary_gives_frequent_values_their_own_row(column, min_count):
    """Against a counter: most frequent first, ties by value; the rest, and null, are 0."""
    counts = Counter(v for v in column.to_pylist() if v is not None)
    order = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], _utf8(v)))
    vocabulary = vocabulary_of(counted(column), min_count=min_count)
    assert vocabulary.values.to_pylist() == order
    assert vocabulary(column).tolist() == [order.index(v) + 1 if v in order else 0 for v in column.to_pylist()]


def _utf8(value):
    return value.encode() if isinstance(value, str) else value


@given(columns, st.integers(2, 2**63 - 1))
def test_hashing_is_within_its_table_and_null_is_row_zero(column, rows):
    """Rows 1 .. rows - 1 for anything, one value one row."""
    rows_of = Hash(rows)(column)
    present = [v is not None for v in column.to_pylist()]
    assert all((1 <= r < rows) if p else r == 0 for r, p in zip(rows_of.tolist(), present, strict=True))
    assert len({(v, r) for v, r in zip(column.to_pylist(), rows_of.tolist(), strict=True)}) == len(
        set(column.to_pylist())
    )


def test_hashing_is_the_same_in_another_process():
    """No seed of the process enters; these rows are part of the format."""
    code = (
        "import pyarrow as pa; from rec.data.encoders import Hash; "
        "print(Hash(1000)(pa.array(['a','b'])).tolist(), Hash(1000)(pa.array([1,-5])).tolist())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = f"{Hash(1000)(pa.array(['a', 'b'])).tolist()} {Hash(1000)(pa.array([1, -5])).tolist()}\n"
    assert output == here == "[78, 882] [546, 485]\n"


def test_a_cross_is_the_same_in_another_process():
    """And another one in another order; these rows are part of the format."""
    code = (
        "import pyarrow as pa; from rec.data.encoders import hashed;"
        "a, b = hashed(pa.array([7, -1])), hashed(pa.array(['x', None]));"
        "print(a.mixed(b).rows(1000).tolist(), b.mixed(a).rows(1000).tolist())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[605, 0] [170, 0]\n"


@given(st.lists(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)), st.sets(st.integers(-5, 5)))
def test_buckets_are_counted_from_below(numbers, edges):
    """Against a loop: 0 where missing, else one more than the edges that are not above the number."""
    buckets = Buckets(sorted(edges))(pa.array(numbers, pa.float32()))
    assert buckets.tolist() == [0 if v is None else 1 + sum(edge <= v for edge in edges) for v in numbers]
    assert Buckets(sorted(edges))(pa.array([float("nan")], pa.float32())).tolist() == [0]


def test_int_mixing_is_splitmix64():
    """First outputs of the published generator from seed 0 and from one step later."""
    state = np.array([0, 0x9E3779B97F4A7C15], np.uint64)
    assert [hex(v) for v in encoders.mix(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_vocabularies_survive_the_disk(tmp_path):
    """Saved and loaded, rows are the same; clock tables need no file."""
    spec = parse(
        'name = "x"\n[keys]\ntime = "t"\n[context]\nu = { kind = "id", values = "string" }\n'
        'h = { kind = "id", make = "hour" }\n'
        'k = { kind = "id", encode = "hash", rows = 9 }\n[tasks.c]\nlabel = "c"'
    )
    encoders.save({"u": Vocabulary(pa.array(["b", "a"])), "k": Hash(9)}, tmp_path)
    loaded = encoders.load(spec, tmp_path)
    assert (loaded["u"](pa.array(["a", "b", "z"])).tolist(), loaded["k"].rows) == ([2, 1, 0], 9)
    (tmp_path / "u.arrow").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"u\.arrow: not a vocabulary"):
        encoders.load(spec, tmp_path)
    (tmp_path / "u.arrow").unlink()
    with pytest.raises(BundleError, match=r"u\.arrow: missing vocabulary"):
        encoders.load(spec, tmp_path)


def test_an_id_of_the_wrong_sort_is_refused_with_an_example():
    """The error says how to declare text ids."""
    with pytest.raises(DataError, match=r"context\.user_id: expected an id \(int\), got 'bob'; for ids that are text"):
        as_ids(pa.array(["bob"]), "int", "context.user_id")
    assert as_ids(pa.array([1, 2], pa.int16()), "string", "x").to_pylist() == ["1", "2"]
