"""Logs of one table per kind of event, read from the spec that ships."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from features import sources
from features.pipeline import build
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import dump, parse
from tests.features.reads import at, attributed, candidates, read, save


def one_per_event(folder: Path) -> None:
    """Impressions in Parquet, clicks in CSV with other names, purchases in Arrow; ids are text."""
    rows = [("u", "x", 0, 0), ("u", "x", 0, 10), ("u", "y", 0, 10), ("v", "x", 2, 0), ("v", "y", 3, 0)]
    users, items, days, minutes = (list(column) for column in zip(*rows, strict=True))
    times = [at(d, m) for d, m in zip(days, minutes, strict=True)]
    save(folder, "impressions.parquet", {"user_id": users, "item_id": items, "time": times})
    clicks = [
        ("u", "x", at(0, 12)),
        ("u", "x", at(0, 9)),
        ("u", "x", at(0, 13)),
        ("v", "y", at(2, 0)),
        ("w", "x", at(0, 0)),
    ]
    save(
        folder,
        "clicks.csv",
        {"uid": [c[0] for c in clicks], "sku": [c[1] for c in clicks], "at": [c[2].isoformat() for c in clicks]},
    )
    save(folder, "purchases.arrow", {"user_id": ["u"], "item_id": ["x"], "time": [at(1, 0)], "amount": [9.5]})
    save(folder, "items.csv", {"item_id": ["x", "y"], "listed": ["2026-01-01", "2026-02-01"]})


def test_separate_tables_of_events(tmp_path):
    """specs/events.toml as it ships: an event belongs to the latest impression of its user and item at or before it."""
    one_per_event(tmp_path)
    spec, logs = read("events", tmp_path)
    rows, _ = attributed(spec, logs)
    assert rows["clicked"].to_list() == [1, 1, 0, 0, 0]
    assert rows["clicked_time"].to_list()[:2] == [at(0, 9), at(0, 12)]
    assert rows["bought"].to_list() == [0, 1, 0, 0, 0]
    assert rows["paid"].to_list() == [None, 9.5, None, None, None]
    assert rows["clicked_count"].to_list() == [1, 2, 0, 0, 0]
    table = candidates(spec, logs, tmp_path)
    assert [(r["user"] if "user" in r else r["user_id"], r["click"], r["buy"]) for r in table][:2] == [
        ("u", 1, 0),
        ("u", 1, 1),
    ]
    assert table[-1]["bought"] == []


def test_events_without_an_impression_are_left_out_and_found(tmp_path):
    """One of a stranger, and one before its impression: a matter of clocks."""
    one_per_event(tmp_path)
    _, findings = attributed(*read("events", tmp_path))
    lost, early = [finding for finding in findings if finding.name.startswith("source.events.clicked")]
    assert (lost.passed, lost.count, lost.total) == (True, 2, 5)
    assert lost.text == "events without an impression at or before them within 1:00:00; left out"
    assert (early.passed, early.count, early.total) == (True, 1, 5)
    assert early.text == "events that came before the impression of their user and item; do the clocks agree?"
    _, findings = attributed(*read("events", tmp_path, "source.events.clicked.unmatched=0.3"))
    assert not findings[0].passed
    assert (
        "; source.events.clicked.unmatched allows 30%; do the keys and clocks of both logs agree?" in findings[0].text
    )


def test_one_file_may_hold_impressions_and_events(tmp_path):
    """Told apart by an expression, with moments that name no year."""
    rows = {"who": [1, 1, 1, 2], "what": [5, 5, 6, 5], "type": [0, 1, 0, 1], "day": ["6-4", "6-30", "7-2", "6-4"]}
    save(tmp_path, "all.csv", rows)
    spec = parse(
        """
        name = "x"
        source.kind = "events"
        source.impressions = "logs/all.csv"
        source.where = "type = 0"
        source.events.bought = { files = "logs/all.csv", where = "type = 1", within = "30d" }
        keys = { user = "who", item = "what", time = "day", time_format = "%m-%d" }
        context.who.kind = "id"
        candidates.what.kind = "id"
        tasks.buy.label = "bought"
        """
    )
    logs = sources.read(spec, tmp_path)
    attributed_rows, findings = attributed(spec, logs)
    assert attributed_rows["bought"].to_list() == [1, 0]
    assert attributed_rows["day"].to_list() == [datetime(2000, 6, 4, tzinfo=UTC), datetime(2000, 7, 2, tzinfo=UTC)]
    assert attributed_rows["bought_time"].to_list() == [datetime(2000, 6, 30, tzinfo=UTC), None]
    assert (findings[0].count, findings[0].total) == (1, 2)


def test_several_files_may_hold_one_kind_of_event(tmp_path):
    """A list of paths, of any form, with ids that are numbers in one and text in the other."""
    save(tmp_path, "i.parquet", {"user": [1, 2], "item": [5, 5], "time": [at(0, 0)] * 2})
    save(tmp_path, "c.parquet", {"user": [1], "item": [5], "time": [at(0, 1)]})
    save(tmp_path, "d.parquet", {"user": ["2"], "item": ["5"], "time": [at(0, 1).timestamp()]})
    spec = parse(
        """
        name = "x"
        source.kind = "events"
        source.impressions = "logs/i.parquet"
        source.events.c.files = ["logs/c.parquet", "logs/d.parquet"]
        keys = { user = "user", item = "item", time = "time" }
        context.user.kind = "id"
        candidates.item.kind = "id"
        tasks.c.label = "c"
        """
    )
    assert attributed(spec, sources.read(spec, tmp_path))[0]["c"].to_list() == [1, 1]


def test_an_event_belongs_to_its_request_where_it_names_one(tmp_path):
    """Two requests show the same item at once; the click says which it was."""
    times = [at(0, 0), at(0, 0)]
    save(tmp_path, "i.parquet", {"user": [1, 1], "item": [5, 5], "time": times, "rid": ["a", "b"]})
    save(tmp_path, "c.parquet", {"user": [1], "item": [5], "time": [at(0, 1)], "rid": ["a"]})
    spec = parse(
        """
        name = "x"
        source.kind = "events"
        source.impressions = "logs/i.parquet"
        source.events.c = { files = "logs/c.parquet", request = "rid" }
        keys = { user = "user", item = "item", time = "time", request = "rid" }
        context.user.kind = "id"
        candidates.item.kind = "id"
        tasks.c.label = "c"
        """
    )
    assert attributed(spec, sources.read(spec, tmp_path))[0]["c"].to_list() == [1, 0]


def test_an_event_with_other_columns_is_refused(tmp_path):
    """With the nearest."""
    one_per_event(tmp_path)
    with pytest.raises(DataError, match=r"source.events.clicked.files: no column 'skus'; did you mean 'sku'\?"):
        read("events", tmp_path, 'source.events.clicked.item="skus"')
    with pytest.raises(SpecError, match=r"source.events.clicked.request: needs keys.request"):
        read("events", tmp_path, 'source.events.clicked.request="rid"')


def test_events_need_their_keys(tmp_path):
    """Who, what and when."""
    spec = parse(
        'name = "x"\nsource = { kind = "events", impressions = "f", events = {} }\ntasks = { a = { label = "a" } }'
    )
    with pytest.raises(SpecError, match=r'keys: source "events" needs keys.user, keys.item and keys.time'):
        sources.read(spec, tmp_path)


def test_a_feature_that_reads_what_an_event_says_is_refused(tmp_path):
    """What somebody will pay is not known when something is shown."""
    one_per_event(tmp_path)
    spec, logs = read("events", tmp_path)
    overridden = parse(dump(spec), overrides=['candidates.paid={kind="number"}'])
    with pytest.raises(SpecError, match=r"candidates.paid: reads 'paid' of source.events.bought, which is not known"):
        build.build(overridden, logs, tmp_path / "data", progress=Silent())


def test_an_event_that_is_logged_twice_happened_once(tmp_path):
    """Equal in every column that is read, timestamp included; `duplicates = "keep"` counts both."""
    one_per_event(tmp_path)
    path = tmp_path / "logs/clicks.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines, *lines]) + "\n")
    counted = 'candidates.n={ kind = "kept", column = "clicked_count" }'
    kept = []
    for place, more in enumerate(([], ['logs.duplicates="keep"'])):
        spec, logs = read("events", tmp_path, counted, *more)
        (tmp_path / str(place)).mkdir()
        kept.append([row["n"] for row in candidates(spec, logs, tmp_path / str(place))])
    assert kept == [[1, 2, 0, 0, 0], [2, 4, 0, 0, 0]]
