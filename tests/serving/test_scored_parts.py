"""Who scores, and how many at a time, changes no byte; nor does a command that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from rec.data import splits
from rec.data.session_table import outcomes_of
from rec.errors import DataError, SpecError
from rec.progress import Silent
from serving import batch
from serving.request_files import forms
from serving.request_files.score import score as score_requests
from serving.scored_parts import ScoringWorkers
from serving.worker_pool import ProcessExecutor
from tests import ROOT

TIME = "2026-03-09T10:00:00Z"


def everything(out):
    """The bytes of every file of a folder."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def many(data, spec, tmp_path_factory):
    """The test split in three files, of one, three and one part."""
    folder = tmp_path_factory.mktemp("many") / "data"
    rows = next(splits.read(data, "test", spec))
    (folder / "test").mkdir(parents=True)
    for index, blocks in enumerate(([0], [10, 20, 30, 40, 50], [60])):
        part = folder / "test" / f"part-{index:05d}.arrow"
        splits.write(part, [rows.slice(start, 10) for start in blocks], rows.schema)
    return folder


@pytest.fixture(scope="module")
def small():
    """Parts of a few requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_PART", 20)
        patch.setattr(forms, "PART_ROWS", 3)
        yield


@pytest.fixture(scope="module")
def expected(bundle, many, small, tmp_path_factory):
    """The scores, by one process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    batch.score(bundle, many, out, workers=ScoringWorkers(procs=1), progress=Silent())
    return everything(out)


def test_a_large_file_has_several_parts(expected):
    """In the order of its rows; a small one has a short name."""
    names = [str(path) for path in expected if path.suffix == ".parquet"]
    assert sorted(names) == [
        "part-00000.parquet",
        *(f"part-00001-0000{number}.parquet" for number in range(3)),
        "part-00002.parquet",
    ]


def test_processes_change_no_byte(bundle, many, expected, tmp_path):
    """Two of them, for five parts."""
    batch.score(bundle, many, tmp_path / "out", workers=ScoringWorkers(procs=2), progress=Silent())
    assert everything(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_changes_no_byte(bundle, many, expected, tmp_path):
    """A cluster of two nodes with one worker each."""
    pytest.importorskip("ray", reason="needs Ray: the extra ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        batch.score(bundle, many, tmp_path / "out", workers=ScoringWorkers(engine="ray"), progress=Silent())
        assert everything(tmp_path / "out") == expected
    finally:
        cluster.shutdown()


def test_a_command_killed_at_its_first_step_goes_on(bundle, many, expected, tmp_path):
    """The folder holds half of its record and nothing else."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/..multigate.json.77.tmp").write_text("{")
    batch.score(bundle, many, tmp_path / "out", workers=ScoringWorkers(procs=1), progress=Silent())
    assert everything(tmp_path / "out") == expected


def test_ray_is_asked_for_where_it_is_missing(bundle, many, tmp_path, monkeypatch):
    """By the extra that brings it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r'engine "ray" needs Ray: `pip install \'multigate\[ray\]\'` installs it'):
        batch.score(bundle, many, tmp_path / "out", workers=ScoringWorkers(engine="ray"), progress=Silent())


@pytest.mark.parametrize("form", ["jsonl", "parquet", "arrow"])
def test_parts_of_a_file_of_requests_are_its_rows(bundle, small, tmp_path, form):
    """Together they are what one part would have been, whatever blocks the file has; rows keep their numbers."""
    rows = [
        {"time": TIME, "context": {"user_id": user}, "candidates": [{"item_id": item} for item in range(1, 2 + user)]}
        for user in range(1, 12)
    ]
    path = tmp_path / f"r.{form}"
    if form == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, rows)))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    else:
        feather.write_feather(pa.Table.from_pylist(rows), path, chunksize=4, compression="uncompressed")
    score_requests(bundle, [path], tmp_path / "out", workers=ScoringWorkers(), progress=Silent())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "PART_ROWS", 100)
        score_requests(bundle, [path], tmp_path / "one", workers=ScoringWorkers(), progress=Silent())
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 4
    whole = pl.read_parquet(tmp_path / "one/part-00000.parquet")
    assert pl.read_parquet(tmp_path / "out/*.parquet").equals(whole)
    names = whole["request_id"].unique(maintain_order=True).to_list()
    assert names[-1] == f"{path.name}:{21 if form == 'jsonl' else 11}"


def test_the_share_of_bad_rows_is_that_of_all_parts(bundle, small, tmp_path):
    """Two processes stop where one would: at the row that is one too many."""
    good = {"time": TIME, "context": {"user_id": 7}, "candidates": [{"item_id": 3}]}
    bad = {**good, "context": {"user_id": "bob"}}
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps(bad if row in (2, 7) else good) for row in range(1, 11)))
    for procs in (1, 2):
        out, workers = tmp_path / f"out-{procs}", ScoringWorkers(procs=procs)
        with pytest.raises(
            DataError, match=r"row [27]: context\.user_id: expected an id(.|\n)*[12] of 10 rows cannot be"
        ):
            score_requests(bundle, [path], out, workers=workers, progress=Silent())
        assert not list(out.glob(".*.tmp"))
        assert score_requests(bundle, [path], out, workers=workers, bad_rows=0.2, progress=Silent())["rejected"] == 2


def test_tables_without_labels_are_scored_the_same(bundle, data, spec, tmp_path):
    """Of all labels, of some, or of none."""
    rows = next(splits.read(data, "test", spec)).slice(0, 20)
    scores = []
    for labels in (list(spec.tasks), list(spec.tasks)[:1], []):
        kind = rows.schema.field("candidates").type.value_type
        stays = [field for field in kind if field.name not in outcomes_of(spec) or field.name in labels]
        shape = rows.schema.set(3, pa.field("candidates", pa.list_(pa.struct(stays))))
        folder = tmp_path / f"labels-{len(labels)}"
        (folder / "test").mkdir(parents=True)
        splits.write(folder / "test/part-00000.arrow", [pa.RecordBatch.from_pylist(rows.to_pylist(), shape)], shape)
        out = tmp_path / f"scores-{len(labels)}"
        batch.score(bundle, folder, out, workers=ScoringWorkers(), progress=Silent())
        scores.append(pl.read_parquet(out / "*.parquet"))
    assert scores[0].equals(scores[1])
    assert scores[0].equals(scores[2])


def fails(_job, index):
    """A task that is killed, or at fault."""
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    raise DataError(f"task {index}")


def sleeps(_job, _index):
    """A task that takes long."""
    time.sleep(60)


@pytest.mark.parametrize(
    ("index", "kind", "message"), [(0, DataError, "task 0"), (1, OSError, r"exit code -9\): it was killed")]
)
def test_what_ends_a_process_is_told(index, kind, message):
    """An error of a task is raised here; a death is an error of the machine, exit code 5. All others are ended."""
    engine = ProcessExecutor(1)
    with pytest.raises(kind, match=message):
        list(engine.run(fails, None, [index]))
    assert not [child for child in psutil.Process().children() if "multiprocessing.spawn" in " ".join(child.cmdline())]


def test_no_process_outlives_its_parent(tmp_path):
    """However the parent ends."""
    code = (
        "from serving.worker_pool import ProcessExecutor\n"
        "from tests.serving.test_scored_parts import sleeps\n"
        "if __name__ == '__main__':\n    list(ProcessExecutor(2).run(sleeps, None, [0, 1]))\n"
    )
    (tmp_path / "parent.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], env=environment)
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(parent.pid).children()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)  # two, and the resource tracker
    parent.kill()
    parent.wait()
    assert len(psutil.wait_procs(children, timeout=30)[0]) == len(children)
