from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.errors import DataError
from serving.request_files import forms


def requests(path):
    """Every request of a file, part by part."""
    return [request for part in forms.sections(path) for request in forms.requests(part)]


@pytest.fixture
def folder(tmp_path):
    """Two files of requests, and what is passed over."""
    for name in ("b.jsonl", "a.parquet", "_SUCCESS", ".hidden.jsonl"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_is_the_files_in_it(folder):
    """In order of name, without hidden ones and those of writers."""
    assert forms.paths([folder]) == [folder / "a.parquet", folder / "b.jsonl"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["c.jsonl"], r"c\.jsonl: no such file or folder"),
        (
            ["log.cvs"],
            r"log\.cvs: expected a file of requests or rows .* got '\.cvs'; did you mean '\.csv'",
        ),
        (["b.jsonl", "b.jsonl"], r"b\.jsonl: given twice"),
        (["empty"], r"empty: no file of requests in it: expected \.parquet"),
    ],
)
def test_what_cannot_be_files_of_requests_is_refused(folder, names, message):
    """Before anything is written."""
    (folder / "log.cvs").touch()
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        forms.paths([folder / name for name in names])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": [1], "candidate": [1]}, r"r\.parquet: candidate: no column of requests, .*did you mean 'candidates'"),
        ({"time": [1], "context": [1]}, r"r\.parquet: candidates: not in this table; expected at least time and cand"),
        ({"request_id": ["a"], "candidates": [1]}, r"r\.parquet: time: not in this table"),
    ],
)
def test_a_table_of_something_else_is_refused_as_a_whole(tmp_path, columns, message):
    """Not row by row."""
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=message):
        list(requests(tmp_path / "r.parquet"))


def test_lines_are_counted_as_an_editor_counts_them(tmp_path, monkeypatch):
    """Blank ones are no requests; a long one is cut, and is one line."""
    monkeypatch.setattr(forms, "LINE_BYTES", 8)
    (tmp_path / "r.jsonl").write_bytes(b"one\n\n  \r\n" + b"x" * 40 + b"\nlast")
    assert requests(tmp_path / "r.jsonl") == [(1, b"one\n"), (4, b"x" * 9), (5, b"last")]
    assert [part.rows for part in forms.sections(tmp_path / "r.jsonl")] == [3]


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.ndjson.gz"])
def test_compressed_requests_are_refused_and_compressed_rows_are_not(tmp_path, name):
    """A part of requests begins at a byte of the file, which a compressed one would have to be read up to."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"time": 1, "item_id": 3}\n' * 9))
    assert forms.is_flat(path)
    path.write_bytes(gzip.compress(b'{"time": 1, "candidates": [{"item_id": 3}]}\n' * 9))
    with pytest.raises(DataError, match=r"a file of requests that is compressed: decompress it first \(only flat rows"):
        forms.is_flat(path)
    path.write_bytes(b"no gzip")
    assert forms.is_flat(path)
