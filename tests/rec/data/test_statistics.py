"""Statistics of parts: equal to those of the whole, and to counting row by row."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import preprocessor, statistics
from rec.data.session_table import flat, schema
from rec.errors import BundleError
from rec.spec import parse
from tests import strategies

SPEC = parse("""
name = "x"
[keys]
time = "t"
user = "user"
[context]
user = { kind = "id" }
seen = { kind = "ids", table = "item" }
words = { kind = "ids", make = "tokens", values = "string" }
last = { kind = "number", make = "since", scale = "quantile" }
both = { kind = "id", make = "cross", of = ["user", "hour"], rows = 50 }
hour = { kind = "id", make = "hour" }
[candidates]
item = { kind = "id" }
price = { kind = "number", scale = "log" }
plain = { kind = "number", scale = "none" }
[tasks.click]
label = "c"
[tasks.buy]
label = "b"
given = "click"
negatives = 0.1
[tasks.spent]
label = "s"
given = "buy"
predict = "ordinal"
""")
DAY = 86_400_000_000


def blocks(spec, rows, cuts):
    """Session-table rows in blocks."""
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    parts = [rows[start:stop] for start, stop in pairwise(edges)]
    return [pa.RecordBatch.from_pylist(part, schema=schema(spec)) for part in parts]


def same(left, right):
    """Bit for bit, the order of values included."""
    assert {name: counts.to_pydict() for name, counts in left.ids.items()} == {
        name: counts.to_pydict() for name, counts in right.ids.items()
    }
    assert left.happened == right.happened
    for mine, theirs in ((left.numbers, right.numbers), (left.labels, right.labels)):
        assert mine.keys() == theirs.keys()
        for name, sketch_of in mine.items():
            assert sketch_of.level == theirs[name].level
            for part in ("key", "count", "rest"):
                np.testing.assert_array_equal(getattr(sketch_of, part), getattr(theirs[name], part))


@given(st.data())
def test_parts_together_are_the_whole(data):
    """However rows are cut, and however parts are grouped on the way; and what is fitted is the same to the byte."""
    spec = data.draw(strategies.specs())
    rows = data.draw(strategies.rows(spec))
    whole = statistics.of_rows(blocks(spec, rows, [])[0], spec)
    parts = [statistics.of_rows(block, spec) for block in blocks(spec, rows, data.draw(st.lists(st.integers(0, 9))))]
    same(statistics.merge(parts), whole)
    middle = data.draw(st.integers(0, len(parts)))
    groups = [statistics.merge(group) for group in (parts[:middle], parts[middle:]) if group]
    same(statistics.merge(groups), whole)
    assert (
        preprocessor.from_statistics(spec, statistics.merge(groups)).scales
        == preprocessor.from_statistics(spec, whole).scales
    )


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), min_size=1, max_size=9))
def test_gathering_parts_changes_nothing(lists):
    """Parts are counted together some at a time; values stay in the order in which they first occur."""
    spec = parse('name = "x"\n[candidates]\na = { kind = "id" }\n[tasks.c]\nlabel = "c"')
    parts = []
    for many in lists:
        rows = [{"request_id": "r", "time": 0, "context": {}, "candidates": [{"a": v, "c": 0} for v in many]}]
        parts.append(statistics.of_rows(blocks(spec, rows, [])[0], spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_PENDING", 3)
        merged = statistics.merge(parts).ids["a"]
    counts = Counter(v for many in lists for v in many)
    assert dict(zip(merged["value"].to_pylist(), merged["count"].to_pylist(), strict=True)) == counts
    assert merged["value"].to_pylist() == list(counts)


ROWS = [
    {
        "request_id": "r",
        "time": 3 * DAY,
        "context": {"user": 7, "seen": [1, 1, 9], "words": ["a", "b", "a"], "last": DAY},
        "candidates": [
            {"item": 1, "price": 3.0, "plain": 1.0, "click": 1, "buy": 1, "spent": 5.0},
            {"item": 2, "price": None, "plain": 2.0, "click": 1, "buy": 0, "spent": 0.0},
            {"item": 1, "price": 3.0, "plain": None, "click": 1, "buy": -1, "spent": 8.0},
            {"item": None, "price": 1.0, "plain": 2.0, "click": 0, "buy": 0, "spent": None},
        ],
    },
    {"request_id": "s", "time": 4 * DAY, "context": {"user": 7, "last": None}, "candidates": []},
]


def test_everything_is_counted_where_it_belongs():
    """Context once per request, an age in days, events where their parent happened, shared tables by their owner."""
    stats = statistics.of_rows(blocks(SPEC, ROWS, [])[0], SPEC)
    assert {name: counts.to_pydict() for name, counts in stats.ids.items()} == {
        "user": {"value": [7], "count": [2]},
        "words": {"value": ["a", "b"], "count": [2, 1]},
        "item": {"value": [1, 2], "count": [2, 1]},
    }
    assert stats.numbers.keys() == {"last", "price"}
    assert (stats.numbers["last"].lower().tolist(), stats.numbers["last"].count.tolist()) == ([2.0], [1])
    assert (stats.numbers["price"].lower().tolist(), stats.numbers["price"].count.tolist()) == ([1.0, 3.0], [1, 2])
    assert stats.happened == {"click": (3, 1), "buy": (1, 1)}
    assert stats.labels["spent"].lower().tolist() == [5.0]


def test_what_is_fitted_follows_from_the_counts():
    """A row of its own for every value, edges, and a rate that stands for non-events that were left out."""
    learnt = preprocessor.fit(blocks(SPEC, ROWS, []), SPEC)
    assert learnt.encoders["words"].values.to_pylist() == ["a", "b"]
    assert learnt.rows(SPEC) == {"user": 2, "words": 3, "last": 2, "both": 50, "hour": 25, "item": 3}
    assert learnt.rates == {"click": 4 / 6, "buy": 2 / (1 + 1 / 0.1 + 2)}
    assert learnt.scales["plain"] == preprocessor.Scale(0.0, 1.0, log=False)


@given(data=st.data())
def test_statistics_survive_the_disk(tmp_path_factory, data):
    """Written and read, they are the same; what is not theirs is refused."""
    spec = data.draw(strategies.specs())
    whole = statistics.of_rows(blocks(spec, data.draw(strategies.rows(spec)), [])[0], spec)
    path = tmp_path_factory.mktemp("statistics") / "part.arrow"
    whole.save(path)
    same(statistics.load(spec, path), whole)
    path.write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"part\.arrow: not a table of statistics"):
        statistics.load(spec, path)


@given(data=st.data())
def test_ids_alone_are_those_of_all_that_is_counted(tmp_path_factory, data):
    """Also after the disk; nothing else is there."""
    spec = data.draw(strategies.specs())
    rows = blocks(spec, data.draw(strategies.rows(spec)), [])[0]
    path = tmp_path_factory.mktemp("statistics") / "part.arrow"
    statistics.ids_of(spec, flat(rows, spec)).save(path)
    loaded = statistics.load(spec, path)
    whole = statistics.of_rows(rows, spec)
    assert {n: c.to_pydict() for n, c in loaded.ids.items()} == {n: c.to_pydict() for n, c in whole.ids.items()}
    assert (loaded.numbers, loaded.labels, loaded.happened) == ({}, {}, {})
