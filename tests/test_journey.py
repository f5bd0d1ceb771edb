"""One request, all the way: log -> session table -> trained model -> bundle -> batch scores = the online answer."""

from __future__ import annotations

import json
import threading
import urllib.request

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipelines.cli import commands, demo, run
from rec import spec as specs
from rec.atomic import RECORD, read_json
from rec.data import splits
from rec.progress import Silent
from rec.spec.tasks import outputs
from serving import batch as batches
from serving import bundle as bundles
from serving.online.rank import RankService
from serving.scored_parts import ScoringWorkers
from serving.scorer import Scorer


@pytest.fixture(scope="module")
def table(bundle, data, tmp_path_factory):
    """Batch scores of the test split, one row per candidate."""
    out = tmp_path_factory.mktemp("scores")
    batches.score(bundle, data, out, split="test", workers=ScoringWorkers(), progress=Silent())
    return pl.read_parquet(out / "part-*.parquet")


@pytest.fixture(scope="module")
def rows(spec, data):
    """The session-table rows of the test split."""
    return pa.Table.from_batches(list(splits.read(data, "test", spec))).to_pylist()


def body_of(row, spec) -> bytes:
    """A row as a client that knows every feature would send it."""
    learnt = {side: set(features) for side, features in spec.sides()}
    context = {name: value for name, value in row["context"].items() if name in learnt["context"]}
    candidates = [{name: c[name] for name in c if name in learnt["candidates"]} for c in row["candidates"]]
    request = {"request_id": row["request_id"], "time": row["time"], "context": context, "candidates": candidates}
    return json.dumps(request, default=lambda value: value.isoformat()).encode()


def test_every_shown_candidate_is_scored_once(rows, table):
    """Nothing is lost between the log's requests and the scores, nor comes twice."""
    assert len(table) == sum(len(row["candidates"]) for row in rows)
    assert table.select("request_id", "position").is_unique().all()


def test_batch_and_online_give_the_same_answer(bundle, spec, rows, table):
    """Every probability to 1e-6 and the same order, request by request, from the bytes of a request to the answer's."""
    opened = bundles.load(bundle)
    service = RankService(opened, Scorer(opened, threads=1), new_id=lambda: "none")
    for row in [row for row in rows if row["candidates"]][:20]:
        online = json.loads(service.rank(body_of(row, spec), 0).body)["candidates"]
        batch = table.filter(request_id=row["request_id"]).sort("rank")
        assert [c["item_id"] for c in online] == batch["candidates.item_id"].to_list()
        for name in outputs(spec.tasks):
            np.testing.assert_allclose([c["tasks"][name] for c in online], batch[f"tasks.{name}"], atol=1e-6)


def test_a_child_is_never_likelier_than_its_parent(table):
    """P(buy) <= P(click), in what is served."""
    assert (table["tasks.buy"] <= table["tasks.click"]).all()


def test_the_running_endpoint_answers_as_rank_does(bundle, spec, rows):
    """Over HTTP, on a free port, with several clients at once; and it stops when it is told to."""
    bodies = [body_of(row, spec) for row in rows[:4]]
    answers: dict[int, list] = {}

    def ask(place: int, url: str) -> None:
        request = urllib.request.Request(f"{url}/v1/rank", bodies[place], {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answers[place] = json.load(response)["candidates"]

    with demo.endpoint(bundle) as url:
        clients = [threading.Thread(target=ask, args=(place, url)) for place in range(len(bodies))]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    for place, body in enumerate(bodies):
        assert answers[place] == commands.rank(bundle, body, 1)["candidates"]


def test_one_command_does_it_all_and_then_nothing(spec, tmp_path):
    """`multigate run` leaves data, model, bundle, scores and report; a second run finds them fresh."""
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(specs.dump(spec))
    report = run.run(path, ["train.epochs=1"], out, Silent())
    assert set(report["outputs"]) == {"click", "buy", "buy|click"}
    assert {"data", "model", "bundle", "scores", "report.json", "report.html"} <= {file.name for file in out.iterdir()}
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert run.run(path, ["train.epochs=1"], out, Silent()) == report
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    records = {file.parent.name: read_json(file) for file in out.rglob(RECORD)}
    verbs = {"out": "run", "data": "features", "model": "train", "bundle": "export", "scores": "score"}
    assert {name: record["verb"] for name, record in records.items()} == verbs
    assert all(record["finished"] for record in records.values())
    (out / "data" / "test" / "part-00000.arrow").unlink()
    with pytest.raises(FileExistsError, match=r"data: holds .*\(of which test/part-00000.arrow is missing\)"):
        run.run(path, ["train.epochs=1"], out, Silent())
    assert run.run(path, ["train.epochs=1"], out, Silent(), force=True) == report


class Told:
    """Progress that remembers what was begun, and is interrupted when `until` begins."""

    def __init__(self, until: str = "") -> None:
        self.begun: list[str] = []
        self.until = until

    def start(self, what: str, total: int | None = None, unit: str = "") -> None:
        """Note it, or stop as Ctrl-C would."""
        self.begun.append(what)
        if what == self.until:
            raise KeyboardInterrupt

    def advance(self, units: int, **figures: float) -> None:
        """Nothing to note."""

    def say(self, line: str) -> None:
        """Nothing to note."""


def test_an_interrupted_run_goes_on_after_its_last_epoch(spec, tmp_path):
    """Ctrl-C in the second epoch: the same command repeats neither tables nor epoch 1, and ends the same."""
    path = tmp_path / "tiny.toml"
    path.write_text(specs.dump(spec))
    with pytest.raises(KeyboardInterrupt):
        run.run(path, [], tmp_path / "broken", Told(until="epoch 2"))
    progress = Told()
    resumed = run.run(path, [], tmp_path / "broken", progress)
    assert progress.begun[0] == "epoch 2"
    assert resumed == run.run(path, [], tmp_path / "whole", Silent())
