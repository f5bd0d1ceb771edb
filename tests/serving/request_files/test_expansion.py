"""Small files that hold far more than their bytes say: memory is bounded, the file is named, others are scored."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.errors import DataError
from serving.request_files import expansion, forms
from serving.request_files import score as scoring
from tests.serving.request_files.test_score import TIME, items, lines, scored

AT = datetime(2026, 3, 9, 10, tzinfo=UTC)
ROWS = 600
GOOD = {"time": TIME, "context": {"user_id": 7}, "candidates": items(3, 4)}


def cities():
    """A column of 600 MB, which is a word of 1 MB and one run of its number."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array(["a" * 1_000_000]))


def flat_bomb(path):
    """Flat rows in less than 2 kB."""
    times = pa.array([AT] * ROWS, pa.timestamp("us", "UTC"))
    same = {"user_id": [7] * ROWS, "item_id": [3] * ROWS}
    pq.write_table(pa.table({"time": times, **same, "city": cities()}), path, compression="zstd")
    assert path.stat().st_size < 2_000


def packed_bomb(path):
    """A line of 600 MB in 3 MB."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(json.dumps({"time": TIME, "user_id": 7, "item_id": 3}).encode()[:-1] + b', "city": "')
        for _ in range(600):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n')


@pytest.mark.parametrize(("name", "bomb"), [("b.parquet", flat_bomb), ("b.jsonl.gz", packed_bomb)])
def test_flat_rows_that_expand_are_read_by_a_process_that_may_take_so_much(bundle, tmp_path, monkeypatch, name, bomb):
    """It ends, not the command, which says which file it was; the one beside it is scored."""
    monkeypatch.setattr(expansion, "BLOCK_BYTES", 300 << 20)
    bomb(tmp_path / name)
    (tmp_path / "good.csv").write_text(f"time,user_id,item_id\n{TIME},7,3\n")
    with pytest.raises(DataError, match=rf"{name}: cannot be read: that takes more than 3\d\d MiB"):
        scored(bundle, [tmp_path / name, tmp_path / "good.csv"], tmp_path / "out")
    assert len(pl.read_parquet(tmp_path / "out/part-00001.parquet")) == 1
    assert not (tmp_path / "out/_spool").exists()


def test_a_request_with_millions_of_candidates_in_a_run_is_put_aside(bundle, tmp_path):
    """Before it is decoded; the request beside it is scored."""
    many = 5_000_000
    item = pa.StructArray.from_arrays([pa.array(np.full(many + 2, 3))], names=["item_id"])
    candidates = pa.ListArray.from_arrays(pa.array([0, 1, many + 1], pa.int32()), item.slice(1))
    context = pa.array([{"user_id": 7}] * 2)
    table = pa.table({"time": pa.array([AT] * 2, pa.timestamp("us", "UTC")), "context": context})
    path = tmp_path / "r.parquet"
    pq.write_table(table.append_column("candidates", candidates), path, compression="zstd")
    assert path.stat().st_size < 5_000
    assert scored(bundle, [path], tmp_path / "out", bad_rows=0.5)["rejected"] == 1
    reason = json.loads((tmp_path / "out/_quarantine/part-00000.jsonl").read_text())
    assert (reason["row"], reason["reason"]) == (2, f"body: expected at most {4 * forms.LINE_BYTES} bytes in a row")


def test_requests_that_expand_are_a_file_that_cannot_be_read(bundle, tmp_path, monkeypatch):
    """Where even a few of its rows take more memory than they may; with more memory they are scored."""
    context = pa.StructArray.from_arrays([pa.array([7] * ROWS), cities().cast(pa.string())], names=["user_id", "city"])
    candidates = pa.array([[{"item_id": 3}]] * ROWS)
    times = pa.array([AT] * ROWS, pa.timestamp("us", "UTC"))
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"time": times, "context": context, "candidates": candidates}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(forms, "BLOCK_BYTES", 100 << 20)
    with pytest.raises(DataError, match=r"r\.parquet: some of its rows take more than 100 MiB of memory"):
        scored(bundle, [path], tmp_path / "out")


def test_requests_wait_to_be_written_by_their_bytes_too(bundle, tmp_path, monkeypatch):
    """Long texts are not held until there are thousands of them; scores are the same."""
    path = lines(tmp_path / "r.jsonl", [GOOD] * 5)
    scored(bundle, [path], tmp_path / "out")
    monkeypatch.setattr(scoring, "_BLOCK_BYTES", 1)
    scored(bundle, [path], tmp_path / "small")
    wholes = [tmp_path / out / "part-00000.parquet" for out in ("out", "small")]
    assert [pq.read_metadata(whole).num_row_groups for whole in wholes] == [1, 5]
    assert pl.read_parquet(wholes[0]).equals(pl.read_parquet(wholes[1]))
