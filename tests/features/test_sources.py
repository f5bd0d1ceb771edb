"""The registry of sources, and the three shapes of a user's own logs, read from the specs that ship."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features import build, checks, sources
from features.logs import Logs
from rec import parts
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import Spec, load, parse

SPECS = Path(__file__).parents[2] / "specs"
START = datetime(2026, 3, 2, tzinfo=UTC)
ALL = ["census", "events", "impressions", "kuairand", "open_bandit", "requests", "shop"]


def at(day: int, minute: int) -> datetime:
    """A moment of the log."""
    return START + timedelta(days=day, minutes=minute)


def save(folder: Path, name: str, columns: dict) -> None:
    """A table as a file below `logs/`, of the form its name says."""
    path = folder / "logs" / name
    path.parent.mkdir(exist_ok=True)
    rows = pl.DataFrame(columns)
    writers = {".parquet": rows.write_parquet, ".csv": rows.write_csv, ".arrow": rows.write_ipc}
    writers[path.suffix](path)


def read(name: str, folder: Path, *overrides: str) -> tuple[Spec, Logs]:
    """A spec that ships, with the files of a folder."""
    spec = load(SPECS / f"{name}.toml", list(overrides))
    return spec, sources.read(spec, folder)


def candidates(spec: Spec, logs: Logs, folder: Path) -> list[dict]:
    """All candidates of all splits, with the split's name, through the whole of `build`."""
    build.build(spec, logs, folder / "data", progress=Silent())
    made = []
    for split in parts.SPLITS:
        for rows in parts.read(folder / "data", split, spec):
            made += [{"split": split, **row["context"], **c} for row in rows.to_pylist() for c in row["candidates"]]
    return made


def test_the_folder_is_the_registry():
    """A file is a kind."""
    assert sources.names() == ALL
    assert all("kind" not in sources.options_of(name).model_fields for name in ALL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"source.kind: required, but not given; one of census, events"),
        ({"kind": "shp"}, r"source.kind: expected one of census, .*, got 'shp'; did you mean 'shop'\?"),
        ({"kind": "shop", "usres": 3}, r"source.usres: unknown key; did you mean 'users'\?"),
        ({"kind": "shop", "users": "many"}, r"source.users: expected a valid integer, got 'many'"),
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
    spec, logs = read("impressions", tmp_path)
    rows = candidates(spec, logs, tmp_path)
    assert [(r["split"], r["user_id"], r["item_id"], r["click"], r["read"]) for r in rows] == [
        ("train", 1, 10, 1, 1),
        ("train", 1, 11, 1, 0),
        ("validation", 1, 11, 0, 0),
        ("test", 2, 10, 0, 0),
    ]
    assert [r["read_before"] for r in rows] == [[11, 12]] * 3 + [[]]
    assert rows[2]["clicked"] == [10, 11]
    assert all(finding.passed for finding in checks.check(spec, logs))


def test_an_absent_side_table_is_named(tmp_path):
    """By the spec's key."""
    one_per_impression(tmp_path)
    (tmp_path / "logs/users.csv").unlink()
    with pytest.raises(DataError, match=r"source.users: no file .*users.csv"):
        read("impressions", tmp_path)


REQUESTS = {
    "request_id": ["a", "b", "c"],
    "user_id": [1, 1, 2],
    "time": [int(at(0, 0).timestamp()), int(at(2, 0).timestamp()), int(at(3, 0).timestamp())],
    "shown": [[10, 11, 10], [11], [12, 10]],
    "clicked_items": [[10], [], [10, 12]],
    "dwell_seconds": [[41.0], [], [5.0, 31.0]],
}


def one_per_request(folder: Path, **changed: list) -> None:
    """Three requests, and items in CSV."""
    save(folder, "requests.parquet", {**REQUESTS, **changed})
    save(folder, "items.csv", {"item_id": [10, 11, 12], "category": ["x", "x", "y"]})


def test_one_row_per_request(tmp_path):
    """specs/requests.toml as it ships: lists become impressions with position, click and dwell."""
    one_per_request(tmp_path)
    spec, logs = read("requests", tmp_path)
    rows = candidates(spec, logs, tmp_path)
    assert [(r["item_id"], r["position"], r["click"], r["read"]) for r in rows] == [
        (10, 1, 1, 1), (11, 2, 0, 0), (10, 3, 0, 0), (11, 1, 0, 0), (12, 1, 1, 1), (10, 2, 1, 0),
    ]  # fmt: skip
    assert rows[3]["shown"] == [10, 11, 10]
    assert all(finding.passed for finding in checks.check(spec, logs))


def test_requests_without_an_id_are_numbered(tmp_path):
    """One row is one request, whatever the pause."""
    one_per_request(tmp_path)
    path = tmp_path / "logs/requests.parquet"
    pl.read_parquet(path).drop("request_id").write_parquet(path)
    _, logs = read("requests", tmp_path, 'keys.request="row"')
    assert logs.impressions.collect()["row"].to_list() == ["0", "0", "0", "1", "2", "2"]
    with pytest.raises(SpecError, match=r"keys.request: no column 'usr_id' in the logs; did you mean 'user_id'\?"):
        read("requests", tmp_path, 'keys.request="usr_id"')


def test_lists_may_be_text(tmp_path):
    """A CSV cannot hold lists."""
    one_per_request(tmp_path)
    rows = pl.read_parquet(tmp_path / "logs/requests.parquet")
    text = [pl.col(c).cast(pl.List(pl.String)).list.join("|") for c in ("shown", "clicked_items", "dwell_seconds")]
    rows.with_columns(text).write_csv(tmp_path / "logs/requests.csv")
    expected = read("requests", tmp_path)[1].impressions.collect()
    made = read("requests", tmp_path, 'source.files="logs/requests.csv"')[1].impressions.collect()
    assert made.equals(expected.cast(made.schema))


def test_a_click_on_what_was_not_shown_is_left_out_and_found(tmp_path):
    """It loses nothing silently: `check` counts it."""
    one_per_request(tmp_path, clicked_items=[[10], [], [10, 99]])
    spec, logs = read("requests", tmp_path)
    (lost,) = [finding for finding in checks.check(spec, logs) if finding.name == "source.events.clicked"]
    assert (lost.passed, lost.count, lost.total, lost.examples) == (False, 1, 3, ("request row 2 item_id=99",))


def test_values_not_one_per_click_are_refused(tmp_path):
    """Which request, how many of each."""
    one_per_request(tmp_path, dwell_seconds=[[41.0], [], [5.0]])
    with pytest.raises(DataError, match=r"request row 2: expected one of 'dwell_seconds' per item .* got 1 for 2"):
        read("requests", tmp_path)


def test_a_column_that_is_no_list_is_refused(tmp_path):
    """Before it is taken apart."""
    one_per_request(tmp_path, shown=[10, 11, 12])
    with pytest.raises(DataError, match=r"source.files: column 'shown': expected lists, got Int64"):
        read("requests", tmp_path)
    with pytest.raises(DataError, match=r"source.files: no column 'show'; did you mean 'shown'\?"):
        read("requests", tmp_path, 'source.shown="show"')


def test_lists_of_other_ids_are_refused(tmp_path):
    """Words do not meet numbers."""
    one_per_request(tmp_path, clicked_items=[["x"], [], ["x", "y"]])
    with pytest.raises(DataError, match=r"source.files: column 'clicked_items': List\(String\), but 'shown' is List"):
        read("requests", tmp_path)


def test_requests_need_their_keys(tmp_path):
    """A name for the items and one for the request."""
    spec = parse(
        'name = "x"\nsource = { kind = "requests", files = "f", shown = "s", events = {} }\n'
        'tasks = { a = { label = "a" } }'
    )
    with pytest.raises(SpecError, match=r'keys: source "requests" needs keys.item .* and keys.request'):
        sources.read(spec, tmp_path)


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
    rows = logs.impressions.collect()
    assert rows["clicked"].to_list() == [1, 1, 0, 0, 0]
    assert rows["clicked_time"].to_list()[:2] == [at(0, 9), at(0, 12)]
    assert rows["bought"].to_list() == [0, 1, 0, 0, 0]
    assert rows["paid"].to_list() == [None, 9.5, None, None, None]
    made = candidates(spec, logs, tmp_path)
    assert [(r["user"] if "user" in r else r["user_id"], r["click"], r["buy"]) for r in made][:2] == [
        ("u", 1, 0),
        ("u", 1, 1),
    ]
    assert made[-1]["bought"] == []


def test_events_without_an_impression_are_left_out_and_found(tmp_path):
    """One of a stranger, and one before its impression: a matter of clocks."""
    one_per_event(tmp_path)
    spec, logs = read("events", tmp_path)
    (lost,) = [finding for finding in checks.check(spec, logs) if finding.name == "source.events.clicked"]
    assert (lost.passed, lost.count, lost.total) == (False, 2, 5)
    assert "1 came before the impression of their user and item: do the clocks agree?" in lost.text


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
    assert sources.read(spec, tmp_path).impressions.collect()["c"].to_list() == [1, 0]


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
