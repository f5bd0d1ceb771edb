"""Rows put aside by place come back, all of them, in order, whichever ranges they are asked for by."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.pipeline import shuffle

# files of batches of rows, each row with its place
files = st.lists(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=3), min_size=1, max_size=3)


def put_aside(folder: Path, places: list[list[list[int]]]) -> list[Path]:
    """A spill file for each list of batches; rows are numbered as they come."""
    row, paths = 0, []
    for number, batches in enumerate(places):
        paths.append(folder / f"{number}.arrow")
        with shuffle.writing(paths[-1]) as writer:
            for batch in batches:
                rows = pl.DataFrame(
                    {"row": range(row, row + len(batch)), "place": batch}, schema={"row": pl.Int64, "place": pl.Int64}
                )
                writer.write(rows, np.array(batch, np.int64))
                row += len(batch)
    return paths


@settings(deadline=None)
@given(files, st.integers(1, 6))
def test_ranges_of_places_hold_every_row_once_and_in_order(places, parts):
    """The rows of one place are in the order in which they came, across batches and files."""
    flat = [place for batches in places for batch in batches for place in batch]
    with tempfile.TemporaryDirectory() as folder:
        paths = put_aside(Path(folder), places)
        place, count = shuffle.counts(paths)
        assert dict(zip(place.tolist(), count.tolist(), strict=True)) == {p: flat.count(p) for p in set(flat)}
        borders = shuffle.cuts(place, count, parts)
        assert len(borders) - 1 <= max(1, min(parts, len(place)))
        ranges = [shuffle.read(paths, low, high) for low, high in pairwise(borders)]
    rows = [row for part in ranges for row in part.rows()]
    assert sorted(rows) == list(enumerate(flat))
    for values in set(flat):
        mine = [row for row, place in rows if place == values]
        assert mine == sorted(mine)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 8))
def test_ranges_are_of_about_one_size(count, parts):
    """None holds more than its share and one place more."""
    places, counts = np.arange(len(count)) * 3, np.array(count)
    borders = shuffle.cuts(places, counts, parts)
    sizes = [counts[(places >= low) & (places < high)].sum() for low, high in pairwise(borders)]
    assert sum(sizes) == sum(count)
    assert max(sizes) <= sum(count) / parts + max(count)


def test_only_the_columns_asked_for_are_read(tmp_path):
    """Also of a range that nothing is in, so that what follows knows its types."""
    paths = put_aside(tmp_path, [[[3, 1]]])
    assert shuffle.read(paths, 0, 9, columns=["row"]).to_dict(as_series=False) == {"row": [1, 0]}
    assert shuffle.read(paths, 5, 9, columns=["place"]).schema == {"place": pl.Int64}


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    """There whole or not at all."""
    with pytest.raises(ZeroDivisionError), shuffle.writing(tmp_path / "0.arrow") as writer:
        writer.write(pl.DataFrame({"row": [1]}), np.array([1 // 0]))
    assert not (tmp_path / "0.arrow").exists()
