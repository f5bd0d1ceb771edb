"""Logs of one row per request, with lists of what was shown, read from the spec that ships."""

from __future__ import annotations

import pickle
from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.logs import files
from rec.errors import DataError, SpecError
from rec.spec import parse
from tests.features.reads import LATER, at, candidates, read, save, whole

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
    spec, logs = read("requests", tmp_path, LATER)
    rows = candidates(spec, logs, tmp_path)
    assert [(r["item_id"], r["position"], r["click"], r["read"]) for r in rows] == [
        (10, 1, 1, 1), (11, 2, 0, 0), (10, 3, 0, 0), (11, 1, 0, 0), (12, 1, 1, 1), (10, 2, 1, 0),
    ]  # fmt: skip
    assert rows[3]["shown"] == [10, 11, 10]


def test_requests_without_an_id_are_numbered(tmp_path):
    """One row is one request, whatever the pause; of several files the file's number comes first."""
    one_per_request(tmp_path)
    path = tmp_path / "logs/requests.parquet"
    pl.read_parquet(path).drop("request_id").write_parquet(path)
    spec, logs = read("requests", tmp_path, 'keys.request="row"')
    assert whole(spec, logs.impressions).rows["row"].to_list() == ["0", "0", "0", "1", "2", "2"]
    pl.read_parquet(path).head(1).write_parquet(tmp_path / "logs/requests-2.parquet")
    spec, logs = read("requests", tmp_path, 'keys.request="row"', 'source.files="logs/requests*.parquet"')
    numbers = whole(spec, logs.impressions).rows["row"].unique(maintain_order=True).to_list()
    assert numbers == ["0-0", "1-0", "1-1", "1-2"]
    _, logs = read("requests", tmp_path, 'keys.request="usr_id"')
    (finding,) = logs.findings
    text = "no column 'usr_id' in the logs; did you mean 'user_id'?: the number of a row is its request's id"
    assert (finding.level, finding.passed, finding.text) == ("warn", True, text)


def test_requests_of_a_large_file_are_numbered_through(tmp_path, monkeypatch):
    """However it is cut."""
    monkeypatch.setattr(files, "ROWS", 2)
    one_per_request(tmp_path)
    path = tmp_path / "logs/requests.parquet"
    pl.read_parquet(path).drop("request_id").write_parquet(path, row_group_size=2)
    spec, logs = read("requests", tmp_path, 'keys.request="row"')
    assert len(logs.impressions) == 2
    assert whole(spec, logs.impressions).rows["row"].to_list() == ["0", "0", "0", "1", "2", "2"]


def test_lists_may_be_text(tmp_path):
    """A CSV cannot hold lists."""
    one_per_request(tmp_path)
    rows = pl.read_parquet(tmp_path / "logs/requests.parquet")
    text = [pl.col(c).cast(pl.List(pl.String)).list.join("|") for c in ("shown", "clicked_items", "dwell_seconds")]
    rows.with_columns(text).write_csv(tmp_path / "logs/requests.csv")
    columns = ["request_id", "user_id", "item_id", "time", "position", "clicked", "dwell"]
    spec, logs = read("requests", tmp_path)
    expected = whole(spec, logs.impressions, columns=columns).rows.drop("time")
    spec, logs = read("requests", tmp_path, 'source.files="logs/requests.csv"')
    assert whole(spec, logs.impressions, columns=columns).rows.drop("time").equals(expected)


@pytest.mark.parametrize(
    ("clicked", "dwells"),
    [
        ("[10, 12]", "[null, 31]"), ("[10, 12]", "[nan, 31.0]"), ("['10' '12']", "[None, 31]"),
        ("[10, None, 12]", "[None, 5, 31]"),
    ],
)  # fmt: skip
def test_values_without_one_keep_their_places(tmp_path, clicked, dwells):
    """The second of two seconds is not the first's, in text as in lists."""
    one_per_request(tmp_path)
    rows = pl.DataFrame(REQUESTS)[2:].with_columns(
        shown=pl.lit("[12, 10]"), clicked_items=pl.lit(clicked), dwell_seconds=pl.lit(dwells)
    )
    rows.write_csv(tmp_path / "logs/requests.csv")
    spec, logs = read("requests", tmp_path, 'source.files="logs/requests.csv"')
    whole_rows = whole(spec, logs.impressions)
    assert whole_rows.bad.count == 0
    columns = whole_rows.rows.select("item_id", "position", "clicked", pl.col("dwell").cast(pl.Float64))
    assert columns.rows() == [(12, 1, 1, 31.0), (10, 2, 1, None)]


@pytest.mark.parametrize("gap", [None, "", "nan", "\\N"])
def test_nothing_in_a_list_of_what_was_shown_is_nothing(tmp_path, gap):
    """It has no position, whatever says that there is no value; a request that showed nothing leaves no row."""
    one_per_request(tmp_path)
    rows = {**REQUESTS, "shown": [["10", gap, "11"], ["11"], ["12", "10"]], "clicked_items": [["11"], [], [gap, "10"]]}
    save(tmp_path, "requests.parquet", rows)
    spec, logs = read("requests", tmp_path)
    whole_rows = whole(spec, logs.impressions)
    assert whole_rows.bad.count == 0
    columns = whole_rows.rows.select("item_id", "position", "clicked", "dwell")
    assert columns.rows() == [(10, 1, 0, None), (11, 2, 1, 41.0), (11, 1, 0, None), (12, 1, 0, None), (10, 2, 1, 31.0)]
    one_per_request(tmp_path, shown=[[10], [], None], clicked_items=[[10], [], []], dwell_seconds=[[41.0], [], []])
    spec, logs = read("requests", tmp_path)
    empty = whole(spec, logs.impressions)
    assert (empty.bad.count, empty.rows["request_id"].to_list()) == (0, ["a"])


def test_a_click_on_what_was_not_shown_is_a_bad_row(tmp_path):
    """It loses nothing silently, and the impressions stay."""
    one_per_request(tmp_path, clicked_items=[[10], [], [10, 99]])
    spec, logs = read("requests", tmp_path)
    whole_rows = whole(spec, logs.impressions)
    assert whole_rows.rows["clicked"].to_list() == [1, 0, 0, 0, 0, 1]
    example = f"request_id=c user_id=2 item_id=99 time={REQUESTS['time'][2]} (logs/requests.parquet)"
    assert whole_rows.bad.reasons == {"source.events.clicked: an item that its request did not show": (1, [example])}


def test_values_not_one_per_click_are_a_bad_row(tmp_path):
    """Nobody knows whose they are; what was clicked is known."""
    one_per_request(tmp_path, dwell_seconds=[[41.0], [], [5.0]])
    spec, logs = read("requests", tmp_path)
    whole_rows = whole(spec, logs.impressions)
    assert whole_rows.rows["clicked"].to_list() == [1, 0, 0, 0, 1, 1]
    assert whole_rows.rows["dwell"].to_list() == [41.0, *[None] * 5]
    reason = "source.events.clicked.values: expected one of 'dwell_seconds' per item of 'clicked_items'"
    assert {reason: count for reason, (count, _) in whole_rows.bad.reasons.items()} == {reason: 1}


def test_a_column_that_is_no_list_is_refused(tmp_path):
    """Before it is taken apart."""
    one_per_request(tmp_path, shown=[[{"item": 10, "price": 1.5}]] * 3)
    wrong = r"expected lists of ids, got List\(Struct.*; name a field, such as shown.item; the first is "
    with pytest.raises(DataError, match=wrong):
        read("requests", tmp_path)
    with pytest.raises(DataError, match=r"source.files: no column 'show'; did you mean 'shown'\?"):
        read("requests", tmp_path, 'source.shown="show"')


def test_lists_of_other_ids_are_bad_rows(tmp_path):
    """Words do not meet numbers, unless they are written as such."""
    one_per_request(tmp_path, clicked_items=[["10"], [], ["x", "10"]])
    spec, logs = read("requests", tmp_path)
    read_rows = whole(spec, logs.impressions)
    assert read_rows.bad.reasons["clicked_items: expected a list of ids (int)"][0] == 1
    assert read_rows.rows["clicked"].to_list() == [1, 0, 0, 0]


def test_a_single_id_is_a_list_of_it(tmp_path):
    """In every form; and what separates text is said."""
    one_per_request(tmp_path, clicked_items=[11, None, 10])
    path = tmp_path / "logs/requests.parquet"
    expected = [0, 1, 0, 0, 0, 1]
    spec, logs = read("requests", tmp_path, "source.events.clicked.values={}", 'tasks.read.label="clicked"')
    assert whole(spec, logs.impressions).rows["clicked"].to_list() == expected
    rows = pl.read_parquet(path).with_columns(pl.col("shown").cast(pl.List(pl.String)).list.join("; "))
    rows.drop("dwell_seconds").write_csv(tmp_path / "logs/requests.csv")
    more = ('source.files="logs/requests.csv"', "source.events.clicked.values={}", 'tasks.read.label="clicked"')
    spec, logs = read("requests", tmp_path, *more, 'source.split=";"')
    assert whole(spec, logs.impressions).rows["clicked"].to_list() == expected


def test_requests_need_their_keys(tmp_path):
    """A name for the items and one for the request."""
    spec = parse(
        'name = "x"\nsource = { kind = "requests", files = "f", shown = "s", events = {} }\n'
        'tasks = { a = { label = "a" } }'
    )
    with pytest.raises(SpecError, match=r'keys: source "requests" needs keys.item .* and keys.request'):
        sources.read(spec, tmp_path)


def test_requests_are_taken_apart_in_other_processes(tmp_path):
    """What turns them into impressions travels with the piece."""
    one_per_request(tmp_path)
    spec, logs = read("requests", tmp_path)
    sent = pickle.loads(pickle.dumps(logs.impressions))
    assert whole(spec, sent).rows.equals(whole(spec, logs.impressions).rows)


def test_files_of_one_name_in_two_folders_are_not_merged(tmp_path):
    """Requests without an id are numbered by their file, whatever that is called."""
    for day in ("monday", "tuesday"):
        (tmp_path / day / "logs").mkdir(parents=True)
        one_per_request(tmp_path / day)
        path = tmp_path / day / "logs/requests.parquet"
        pl.read_parquet(path).drop("request_id").write_parquet(path)
    one_per_request(tmp_path)
    names = [str(tmp_path / day / "logs/requests.parquet") for day in ("monday", "tuesday")]
    spec, logs = read("requests", tmp_path, 'keys.request="row"', f"source.files={names}".replace("'", '"'))
    assert whole(spec, logs.impressions).rows["row"].n_unique() == 6


SHOWN = """
name = "shown"
[source]
kind = "requests"
files = "logs/requests.parquet"
shown = "shown"
[source.events.clicked]
items = "clicked_items"
[logs]
columns = "columns"
[keys]
user = "user_id"
item = "item_id"
time = "time"
request = "request_id"
[split]
validation = 2026-03-20T00:00:00Z
test = 2026-03-21T00:00:00Z
[context]
user_id = { kind = "id" }
shown_length = { kind = "number" }
shown = { kind = "ids", last = 9 }
prices = { kind = "vector", size = 3 }
first = { kind = "number" }
[candidates]
item_id = { kind = "id" }
position = { kind = "number" }
from_end = { kind = "number" }
[tasks]
click = { label = "clicked" }
"""


def with_lists(folder: Path, text: str = SHOWN) -> tuple:
    """The spec, and logs of two requests with prices of what they show; an item of the second is missing."""
    shown = {"shown": [[10, 11, 12], [11, None, 10]], "prices": [[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]]}
    rows = {"request_id": ["a", "b"], "user_id": [1, 2], "time": [at(0, 0), at(1, 0)], "clicked_items": [[10], []]}
    save(folder, "requests.parquet", {**rows, **shown})
    (folder / "columns").mkdir(exist_ok=True)
    code = {
        "from_end": "def from_end(shown_length, position):\n    return shown_length - position\n",
        "first": "def first(shown, prices):\n    return shown.list.first() + prices.list.first()\n",
    }
    for name, text_of in code.items():
        (folder / "columns" / f"{name}.py").write_text(text_of)
    spec = parse(text)
    return spec, sources.read(spec, folder)


def test_what_was_shown_is_data(tmp_path):
    """The list, its length, the place in it, and other lists of the row, for features and for columns made by code."""
    spec, logs = with_lists(tmp_path)
    rows = candidates(spec, logs, tmp_path)
    context = ["shown_length", "shown", "prices", "first"]
    assert [rows[0][name] for name in context] == [3, [10, 11, 12], [1.0, 2.0, 3.0], 11.0]
    assert [(row["item_id"], row["position"], row["from_end"]) for row in rows] == [
        (10, 1, 2), (11, 2, 1), (12, 3, 0), (11, 1, 1), (10, 2, 0),
    ]  # fmt: skip


def test_lists_of_events_are_no_features(tmp_path):
    """What was clicked is not known when the list is shown."""
    text = SHOWN.replace("first = ", 'clicks = { kind = "ids", column = "clicked_items" }\nfirst = ')
    with pytest.raises(SpecError, match=r"context.clicks: reads 'clicked_items', a list of source.events.clicked"):
        with_lists(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('position = "user_id"', "source: 'user_id' is keys.user already"),
        ('length = "position"', "source: 'position' is another column that is made of the lists already"),
    ],
)
def test_columns_that_are_made_of_lists_have_names_of_their_own(tmp_path, line, message):
    """They hide no key, and not each other."""
    with pytest.raises(SpecError, match=message):
        with_lists(tmp_path, SHOWN.replace('shown = "shown"\n', f'shown = "shown"\n{line}\n', 1))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('items = "clicked_items"', 'items = "clicked"', "'clicked' of the rows, .* such as is_clicked"),
        ('items = "clicked_items"', 'items = "c"\nvalues = { dwell = "dwell" }', "'dwell' of the rows, .* its_dwell"),
    ],
)
def test_what_is_made_of_a_list_is_not_called_as_a_list(tmp_path, before, after, message):
    """A label that reads it would be taken for one that reads the list."""
    assert before in SHOWN
    with pytest.raises(SpecError, match=rf"source\.events\.clicked: makes a column {message}"):
        with_lists(tmp_path, SHOWN.replace(before, after))
