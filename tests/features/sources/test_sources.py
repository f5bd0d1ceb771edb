"""The registry of sources, and logs of one row per impression, read from the spec that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from features import sources
from rec.errors import DataError, SpecError
from rec.spec import parse
from tests.features.reads import LATER, candidates, read, save

ALL = ["census", "events", "impressions", "kuairand", "open_bandit", "requests", "shop"]


def test_the_folder_is_the_registry():
    """A file is a kind."""
    assert sources.names() == ALL
    assert all("kind" not in sources.options_of(name).model_fields for name in ALL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"source.kind: required, but not given; one of census, events"),
        ({"kind": "shp"}, r"source.kind: no source 'shp': census, .*; did you mean 'shop'\?"),
        ({"kind": "shop", "usres": 3}, r"source.usres: unknown key; did you mean 'users'\?"),
        ({"kind": "shop", "users": "many"}, r"source.users: expected a valid integer, got 'many'"),
        ({"kind": "shop", "seed": -1}, r"source.seed: expected .*greater than or equal to 0, got -1"),
        ({"kind": "shop", "days": 10**9}, r"source.days: expected .*less than or equal to 36500, got 1000000000"),
        ({"kind": "impressions"}, r"source.files: required, but not given"),
    ],
)
def test_a_bad_source_is_refused(source, message):
    """Where, and the nearest word."""
    spec = parse('name = "x"\ntasks = { a = { label = "a" } }').model_copy(update={"source": source})
    with pytest.raises(SpecError, match=message):
        sources.read(spec, Path())


def one_per_impression(folder: Path) -> None:
    """Two files of impressions in CSV, users with a list in text, items in Parquet."""
    head = "user_id,item_id,time,device,clicked,dwell\n"
    (folder / "logs").mkdir()
    (folder / "logs/impressions-1.csv").write_text(
        head + "1,10,2026-03-02T10:00:00Z,phone,1,41\n1,11,2026-03-02T10:00:05Z,phone,1,3\n"
    )
    (folder / "logs/impressions-2.csv").write_text(
        head + "1,11,2026-03-04T10:00:00Z,phone,0,\n2,10,2026-03-05T10:00:00Z,tablet,0,\n"
    )
    (folder / "logs/users.csv").write_text("user_id,age,read_before\n1,30,11|12\n2,,\n")
    save(folder, "items.parquet", {"item_id": [10, 11], "price": [1.0, 2.0]})


def test_one_row_per_impression(tmp_path):
    """specs/impressions.toml as it ships: CSV, side tables, a list in text, a label of two columns."""
    one_per_impression(tmp_path)
    spec, logs = read("impressions", tmp_path, LATER)
    rows = candidates(spec, logs, tmp_path)
    assert [(r["split"], r["user_id"], r["item_id"], r["click"], r["read"]) for r in rows] == [
        ("train", 1, 10, 1, 1),
        ("train", 1, 11, 1, 0),
        ("validation", 1, 11, 0, 0),
        ("test", 2, 10, 0, 0),
    ]
    assert [r["read_before"] for r in rows] == [[11, 12]] * 3 + [[]]
    assert rows[2]["clicked"] == [10, 11]


def test_an_absent_side_table_is_named(tmp_path):
    """By the spec's key."""
    one_per_impression(tmp_path)
    (tmp_path / "logs/users.csv").unlink()
    with pytest.raises(DataError, match=r"source.users: no file .*users.csv"):
        read("impressions", tmp_path)


def test_side_tables_may_have_several_rows_per_key(tmp_path):
    """With the timestamp from which each holds."""
    one_per_impression(tmp_path)
    _, logs = read("impressions", tmp_path, 'source.items_since="listed"')
    assert logs.items is not None
    assert logs.items.since == "listed"
