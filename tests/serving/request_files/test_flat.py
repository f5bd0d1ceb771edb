"""Flat rows, of any form, become the requests that they are of; what cannot be scored is put aside row by row."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest

from rec.errors import DataError
from rec.progress import Silent
from serving.request_files import gather
from serving.request_files.score import score
from serving.scored_parts import ScoringWorkers

HEAD = "request_id,time,user_id,item_id,price\n"
ROWS = [  # request, item, price: of r1 two lie together, and one elsewhere
    "r1,2026-03-09T10:00:00Z,7,3,9.5",
    "r1,2026-03-09T10:00:00Z,7,4,",
    "r2,2026-03-09T11:00:00+01:00,9,3,1e1",
    "r1,2026-03-09T10:00:00Z,7,5,NaN",
    "r2,2026-03-09T10:00:00Z,9.0,5, 12 ",
]
BODIES = [
    {
        "request_id": "r1",
        "time": "2026-03-09T10:00:00Z",
        "context": {"user_id": 7},
        "candidates": {"item_id": [3, 4, 5], "price": [9.5, None, None]},
    },
    {
        "request_id": "r2",
        "time": "2026-03-09T10:00:00Z",
        "context": {"user_id": 9},
        "candidates": {"item_id": [3, 5], "price": [10.0, 12.0]},
    },
]
NUMBERS = [1, 2, 4, 3, 5]


def scored(bundle, path, out, **how):
    """The answer, and the scores in the order of the parts."""
    result = score(bundle, [path], out, workers=ScoringWorkers(), progress=Silent(), **how)
    return result, pl.concat(pl.read_parquet(part) for part in sorted(out.glob("*.parquet")))


@pytest.fixture(scope="module")
def expected(bundle, tmp_path_factory):
    """The scores of the two requests as they are sent."""
    folder = tmp_path_factory.mktemp("requests")
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, BODIES)))
    return scored(bundle, folder / "r.jsonl", folder / "out")[1].drop("row")


def written(folder, form):
    """The flat rows as a file of a form."""
    text = HEAD + "\n".join(ROWS) + "\n"
    path = folder / f"rows{form}"
    if form == ".csv":
        path.write_text(text)
    elif form == ".tsv":
        path.write_text(text.replace(",", "\t"))
    elif form == ".csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        frame = pl.read_csv(text.encode(), null_values=["", "NaN"], schema_overrides={"price": pl.String})
        frame = frame.with_columns(pl.col("price").str.strip_chars().cast(pl.Float64))
        if form.startswith((".jsonl", ".ndjson")):
            data = frame.write_ndjson().encode()
            path.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)
        elif form == ".parquet":
            frame.write_parquet(path)
        else:
            frame.write_ipc(path)
    return path


@pytest.mark.parametrize("form", [".csv", ".tsv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet", ".arrow"])
def test_rows_of_any_form_are_the_requests_they_are_of(bundle, expected, tmp_path, form):
    """Adjacent or not, with the same scores to the bit, and with the row of the file beside each."""
    result, lines = scored(bundle, written(tmp_path, form), tmp_path / "out")
    assert lines.drop("row").equals(expected)
    assert lines["row"].to_list() == NUMBERS
    assert [result[name] for name in ("rows", "requests", "candidates", "rejected")] == [5, 2, 5, 0]
    assert not (tmp_path / "out/_spool").exists()


def test_a_large_file_is_gathered_in_parts(bundle, expected, tmp_path, monkeypatch):
    """A request is whole in one of them, wherever its rows lie."""
    monkeypatch.setattr(gather, "PART_ROWS", 1)
    _, lines = scored(bundle, written(tmp_path, ".csv"), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-00000-*.parquet"))) == 5
    assert lines.sort("request_id", "row").drop("row").equals(expected)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
    part = next(iter(whole))
    (tmp_path / "out" / part).unlink()
    (tmp_path / "out/.multigate.json").write_text(
        (tmp_path / "out/.multigate.json").read_text().replace('"finished": true', '"finished": false')
    )
    scored(bundle, tmp_path / "rows.csv", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")} == whole


def test_without_ids_time_and_context_make_a_request(bundle, expected, tmp_path):
    """Which is called by its first row."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(line.split(",", 1)[1] for line in [HEAD.strip(), *ROWS]) + "\n")
    _, lines = scored(bundle, path, tmp_path / "out")
    assert lines.drop("row", "request_id").equals(expected.drop("request_id"))
    assert lines["request_id"].to_list() == [*["rows.csv:1"] * 3, *["rows.csv:3"] * 2]


BAD = {
    "r1,2026-03-09T10:00:00Z,7,bob,1": "candidates.item_id: expected an id (int), got 'bob'",
    "r1,2026-03-09T10:00:00Z,7,6,dear": "candidates.price: expected a number, got 'dear'",
    "r1,2026-03-09T10:00:00Z,7,3,1": "candidates.item_id: 3 is candidate 0 already",
    "r1,2026-03-09T10:00:00Z,7,,1": "candidates.item_id: required, but not given",
    "r1,2026-03-09T10:00:00Z,7,8,1e39": "candidates.price: expected a number of at most 3.4e38, got 1e+39",
    "r1,2026-03-09T10:00:00Z,8,9,1": "context.user_id: another than in row 1 of the same request",
    "r1,2026-03-09T10:00:01Z,7,9,1": "time: another than in row 1 of the same request",
    "r1,yesterday,7,9,1": "time: expected a timestamp",
    ",2026-03-09T10:00:00Z,7,9,1": "request_id: missing",
    "r1,2026-03-09T10:00:00Z,7,9,1,2": "a row with more values than there are columns",
}


def test_a_bad_row_is_put_aside_alone(bundle, expected, tmp_path):
    """With its number and the reason; the others of its request are scored as if it were not there."""
    path = tmp_path / "rows.csv"
    path.write_text(HEAD + "\n".join([*ROWS, *BAD]) + "\n")
    with pytest.raises(DataError, match=r"rows\.csv: row \d+: (.|\n)*1 of 15 rows cannot be scored"):
        scored(bundle, path, tmp_path / "out")
    result, lines = scored(bundle, path, tmp_path / "out", bad_rows=0.7)
    assert lines.drop("row").equals(expected)
    told = map(json.loads, (tmp_path / "out/_quarantine/part-00000.jsonl").read_text().splitlines())
    reasons = {entry["row"]: entry["reason"] for entry in told}
    assert result["rejected"] == len(BAD)
    for row, text in enumerate(BAD.values(), start=len(ROWS) + 1):
        assert reasons[row].startswith(text), row


def test_a_request_at_fault_is_put_aside_whole(bundle, tmp_path):
    """Where the fault lies in no candidate."""
    path = tmp_path / "rows.csv"
    path.write_text(HEAD + "".join(f"r1,2026-03-09T10:00:00Z,7,{item},1\n" for item in range(2001)) + ROWS[2] + "\n")
    result, lines = scored(bundle, path, tmp_path / "out", bad_rows=1.0)
    assert (result["rejected"], lines["request_id"].to_list()) == (2001, ["r2"])
    assert "expected at most 2000, got 2001" in (tmp_path / "out/_quarantine/part-00000.jsonl").read_text()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("time,user_id,item,price", r"item: no column of flat rows, which are .*did you mean 'item_id'"),
        ("time,user_id,price", r"item_id or|item_id: not in this table, and every row needs it"),
        ("user_id,item_id,price", r"time: not in this table, and every row needs it"),
        ("time,user_id,context.user_id,item_id", r"context\.user_id: two columns of context\.user_id"),
    ],
)
def test_a_table_of_something_else_is_refused(bundle, tmp_path, head, message):
    """As a whole, with the column; other files are scored."""
    (tmp_path / "rows.csv").write_text(f"{head}\n{','.join('1' * len(head.split(',')))}\n")
    with pytest.raises(DataError, match=message):
        scored(bundle, tmp_path / "rows.csv", tmp_path / "out", bad_rows=1.0)


def test_labels_may_be_there_and_are_not_read(bundle, expected, tmp_path):
    """Rows of a log are scored as they are."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEAD.strip() + ",click", *(f"{row},1" for row in ROWS)]) + "\n")
    assert scored(bundle, path, tmp_path / "out")[1].drop("row").equals(expected)


def test_lists_that_differ_are_not_one_context(bundle, tmp_path):
    """Not by a missing value in one, nor by where one value ends."""
    lists = [[3, None], [3], [], None, [None], [3, 4], [34]]
    rows = [{"time": "2026-03-09T10:00:00Z", "user_id": 7, "clicked": clicked, "item_id": 3} for clicked in lists]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result, table = scored(bundle, tmp_path / "r.jsonl", tmp_path / "out")
    assert (result["requests"], table["row"].to_list()) == (7, [1, 2, 3, 4, 5, 6, 7])
    for row in rows:
        row["request_id"] = "r"
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, table = scored(bundle, tmp_path / "r.jsonl", tmp_path / "same", bad_rows=1.0)
    assert table["row"].to_list() == [1]
