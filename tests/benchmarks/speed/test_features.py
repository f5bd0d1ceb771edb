"""The feature bench compares like with like: its shop, its floor, its pandas and its memory are what they say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from benchmarks.speed import features, io_floor, pandas_baseline, process_memory, shop_files, worker
from pipelines.cli import commands
from pipelines.cli.main import main
from rec import spec as specs
from rec.data import splits
from rec.errors import BundleError
from rec.progress import Silent

EVENTS = 20_000
BY = {"requests": ["request_id"], "candidates": ["request_id", "position"]}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A small shop in files."""
    folder = tmp_path_factory.mktemp("bench") / "shop"
    shop_files.make(folder, EVENTS, 7, Silent())
    return folder


@pytest.fixture(scope="module")
def tables(shop, tmp_path_factory) -> Path:
    """What the pipeline makes of it."""
    folder = tmp_path_factory.mktemp("bench") / "tables"
    commands.features(shop / "shop.toml", (), folder, Silent())
    return folder


def impressions(folder: Path) -> list[pl.DataFrame]:
    """Every file of a shop."""
    return [pl.read_parquet(file) for file in sorted((folder / "impressions").iterdir())]


def test_the_shop_has_about_the_events_that_were_asked_for(shop):
    """In files that say how many there are."""
    files = impressions(shop)
    origin = json.loads((shop / "made.json").read_text())
    assert origin["events"] == sum(map(len, files))
    assert abs(origin["events"] / EVENTS - 1) < 0.05
    assert origin["files"] == len(files) == 2


def test_the_shop_is_the_same_for_the_same_seed(shop, tmp_path):
    """And another for another."""
    for seed, same in ((7, True), (8, False)):
        shop_files.make(tmp_path / str(seed), EVENTS, seed, Silent())
        assert pl.concat(impressions(tmp_path / str(seed))).equals(pl.concat(impressions(shop))) is same


def test_a_shop_that_is_there_is_not_drawn_again(shop):
    """But one of another size or seed is."""
    before = (shop / "impressions/00000.parquet").stat().st_ino
    assert shop_files.make(shop, EVENTS, 7, Silent())["asked"] == EVENTS
    assert (shop / "impressions/00000.parquet").stat().st_ino == before


def test_files_are_in_order_of_time(shop):
    """Within a file, and one after the other but for the last pages of sessions that had begun."""
    first, second = (rows["time"] for rows in impressions(shop))
    assert first.is_sorted()
    assert second.is_sorted()
    assert first[0] < second[0]
    assert (first > second[0]).sum() < len(first) * 0.02


def test_files_have_no_request_in_common(shop):
    """A request is one user's, at one time."""
    rows = pl.concat(impressions(shop))
    of_request = rows.group_by("request_id").agg(
        pl.col("user_id").n_unique(), pl.col("time").max() - pl.col("time").min()
    )
    assert of_request["user_id"].max() == 1
    assert of_request["time"].max().total_seconds() < 10


def test_the_shop_in_files_draws_what_it_says(shop):
    """Clicks and purchases are as frequent as their probabilities, within chance."""
    rows = pl.concat(impressions(shop))
    for event in ("click", "buy"):
        p = rows[f"p_{event}"].to_numpy()
        assert abs(rows[event].sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_the_floor_reads_all_and_writes_as_many_files_and_bytes(shop, tmp_path):
    """Whether the output is larger than the input, or smaller."""
    events = sum(map(len, impressions(shop)))
    for number, wanted in enumerate(([3_000_000, 70_000, 2_000_000], [3_000_000], [40_000])):
        out = tmp_path / str(number)
        copied = io_floor.copy(shop, out, wanted, batch=1000)
        sizes = sorted((file.stat().st_size for file in out.iterdir()), reverse=True)
        assert copied == {"rows": events, "bytes": sum(sizes)}
        np.testing.assert_allclose(sizes, sorted(wanted, reverse=True), rtol=0.1)


def ours(folder: Path, spec: specs.Spec) -> dict[str, pd.DataFrame]:
    """The requests and the candidates of session tables, flat."""
    requests, candidates = [], []
    for split in splits.SPLITS:
        for rows in splits.read(folder, split, spec):
            for row in rows.to_pylist():
                requests.append({"request_id": row["request_id"], "split": split, **row["context"]})
                candidates += [
                    {"request_id": row["request_id"], "split": split, **candidate} for candidate in row["candidates"]
                ]
    tables = {"requests": pd.DataFrame(requests), "candidates": pd.DataFrame(candidates)}
    return {name: table.sort_values(BY[name]).reset_index(drop=True) for name, table in tables.items()}


def theirs(folder: Path) -> dict[str, pd.DataFrame]:
    """What pandas wrote."""
    tables = {}
    for name, by in BY.items():
        split = {split: pd.read_parquet(folder / f"{name}-{split}.parquet") for split in splits.SPLITS}
        table = pd.concat([rows.assign(split=split) for split, rows in split.items()])
        tables[name] = table.rename(columns={"joined": "member"}).sort_values(by).reset_index(drop=True)
    return tables


def differing(mine: pd.Series, other: pd.Series) -> int:
    """Rows that are not the same: numbers to the last bit but one, null where the other is."""
    if mine.map(type).eq(list).any():
        return sum(list(a) != list(b) for a, b in zip(mine, other, strict=True))
    if mine.dtype.kind == "f":
        return int((~np.isclose(mine, other.astype(float), rtol=2e-7, atol=0, equal_nan=True)).sum())
    return int(((mine != other) & ~(mine.isna() & other.isna())).sum())


def test_pandas_computes_the_same_features(shop, tables, tmp_path):
    """Every count, rate, history, moment and label of every request, and its split."""
    pandas_baseline.features(shop, tmp_path / "theirs")
    mine, other = ours(tables, specs.load(shop / "shop.toml")), theirs(tmp_path / "theirs")
    for name, table in mine.items():
        assert len(table) == len(other[name]) > 1000
        wrong = {column: differing(table[column], other[name][column]) for column in table}
        assert wrong == dict.fromkeys(table, 0)
    assert mine["requests"]["clicked"].map(len).max() == 20
    assert mine["candidates"]["item_buy"].nunique() > 100


def columns(table: pa.Table) -> dict[str, pl.Series]:
    """Every column of session tables by its name, requests in the order of their ids."""
    rows = pl.DataFrame(pl.from_arrow(table)).sort("request_id")
    sides = {"context": rows["context"], "candidates": rows["candidates"].explode()}
    parts = {f"{side}.{one.name}": one for side, column in sides.items() for one in column.struct.unnest()}
    return {"request_id": rows["request_id"], "time": rows["time"], **parts}


@pytest.mark.parametrize("peer", ["polars_baseline", "duckdb_baseline"])
def test_peers_compute_the_same_session_tables(shop, tables, tmp_path, peer):
    """Every value of every column, to the bit but for the last of a rate's."""
    spec = specs.load(shop / "shop.toml")
    importlib.import_module(f"benchmarks.speed.{peer}").features(shop, tmp_path / "theirs")
    for split in splits.SPLITS:
        mine = pa.Table.from_batches(list(splits.read(tables, split, spec)))
        other = pa.ipc.open_file(pa.memory_map(str(tmp_path / "theirs" / f"{split}.arrow"))).read_all()
        others = columns(other)
        for name, column in columns(mine).items():
            if column.dtype.is_float():
                np.testing.assert_allclose(others[name].to_numpy(), column.to_numpy(), rtol=2e-7, atol=0)
            else:
                assert others[name].cast(column.dtype).equals(column), name


def test_a_shuffled_shop_holds_the_same_impressions(shop, tmp_path):
    """In another order, in as many files."""
    rows = shop_files.shuffle(shop, tmp_path / "shuffled", 7)
    mixed, sorted_rows = pl.concat(impressions(tmp_path / "shuffled")), pl.concat(impressions(shop))
    assert rows == len(mixed) == len(sorted_rows)
    assert not mixed["time"].is_sorted()
    assert mixed.sort("time", "request_id", "position").equals(sorted_rows.sort("time", "request_id", "position"))


HOG = """
import subprocess, sys, time
held = bytearray(100 << 20)
held[::4096] = bytes(len(held[::4096]))
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, __file__])
    child.wait()
else:
    time.sleep(0.8)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_that_of_the_whole_tree(tmp_path):
    """A process of 100 MiB that starts another one holds 200."""
    (tmp_path / "hog.py").write_text(HOG)
    command = [sys.executable, str(tmp_path / "hog.py"), "two"]
    with subprocess.Popen(command) as process, process_memory.Watch(process.pid) as watch:
        process.wait()
    assert watch.resident is not None
    assert 200 < watch.resident / 2**20 < 260
    assert watch.proportional is None or watch.proportional <= watch.resident


def test_what_a_child_said_last_is_in_the_error(tmp_path):
    """With what it was told."""
    with pytest.raises(BundleError, match=r"(?s)bench: \{'work': 'shpo'\} ended with 1:.*KeyError: 'shpo'"):
        process_memory.run("benchmarks.speed.worker", {"work": "shpo"}, tmp_path, Silent())


def test_stages_are_timed_one_after_the_other():
    """The same stage twice is counted together."""
    clock = iter([0.0, 1.0, 3.0, 7.0, 8.0])
    stages = worker.Stages(lambda: next(clock))
    for what in ("a", "b", "a"):
        stages.start(what)
    stages.end()
    assert stages.seconds == {"opening and checking": 1.0, "a": 2.0 + 1.0, "b": 4.0}


def test_a_size_that_the_disk_cannot_hold_is_refused(tmp_path):
    """Before anything is drawn, with what it needs and what there is."""
    with pytest.raises(
        OSError, match=r"1,000,000,000,000 events need about 320000 GB of free disk, got \d+; see --data"
    ):
        features.refuse_full(tmp_path, 10**12)


def test_the_bench_prints_a_row_per_size(tmp_path, capsys):
    """Smallest first, with memory, the floor, pandas and where the time went; shops are kept where that is asked.

    What was found of a size is taken from there when it is asked for again, whatever is to be measured beside it.
    """
    data, results = tmp_path / "data", tmp_path / "results"

    def printed(events: str, *beside: str) -> dict[str, Any]:
        asked = ["--data", str(data), "--results", str(results), *(f"--beside={name}" for name in beside)]
        with pytest.raises(SystemExit) as left:
            main(["bench", "features", "--events", events, *asked, "--json"])
        assert left.value.code == 0
        return json.loads(capsys.readouterr().out)

    variants = ["more", "decayed", "shuffled"]
    smallest = printed("2e3", *variants)
    result = printed("4e3,2e3", "first", "pandas", "duckdb", "polars")
    assert printed("4e3,2e3") == result
    assert result["rows"][0] == smallest["rows"][0]
    assert [peer["who"] for peer in smallest["peers"]] == variants
    small, large = result["rows"]
    assert small["of_linear"] == 1
    assert large["of_linear"] == pytest.approx(
        large["seconds"] / large["events"] / (small["seconds"] / small["events"])
    )
    assert large["of_floor"] == pytest.approx(large["seconds"] / large["floor_seconds"])
    beside = {peer["who"]: peer for peer in result["peers"] if peer["events"] == large["events"]}
    assert list(beside) == ["polars", "duckdb", "pandas", "first"]
    assert beside["pandas"]["of_it"] == pytest.approx(large["seconds"] / beside["pandas"]["seconds"])
    assert large["written_gib"] > 0
    assert large["process_seconds"] > large["seconds"]
    assert beside["polars"]["process_seconds"] > beside["polars"]["seconds"]
    stages = [stage for stage in result["stages"] if stage["events"] == large["events"]]
    assert sum(stage["seconds"] for stage in stages) == pytest.approx(large["seconds"], rel=0.05)
    assert sorted(folder.name for folder in data.iterdir()) == ["networks", "shop-2000", "shop-4000"]
    assert sorted(file.name for file in results.iterdir()) == ["2000.json", "4000.json"]


@pytest.mark.parametrize("text", ["", "many", "1e6,", "10", "inf"])
def test_odd_sizes_are_refused(text, capsys):
    """With an example."""
    with pytest.raises(SystemExit) as left:
        main(["bench", "features", "--events", text])
    assert left.value.code == 2
    assert f"expected numbers of 1000 or more, such as 1e6,1e7, got {text!r}" in " ".join(
        capsys.readouterr().err.split()
    )
