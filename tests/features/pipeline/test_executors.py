"""Who works on a build, and an interruption: nothing that is written depends on it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.logs.logs import Logs
from features.pipeline import build, replay
from features.pipeline.build import BuildOptions
from features.pipeline.executors import SerialExecutor, StepRunner, ThreadExecutor, engine
from rec import spec as specs
from rec.errors import DataError, SpecError
from rec.progress import Silent

SHOP = specs.load(
    Path("specs/shop.toml"),
    [
        "source.users=150",
        'candidates.taste={kind="number",make="rate",per=["user_id","category"],task="click",windows=["1d","ever"]}',
        'candidates.last={kind="number",make="since",per="item_id",task="click"}',
        'candidates.sold={kind="number",make="rate",per="item_id",task="buy",given="click"}',
        'context.paid={kind="number",make="mean",per="user_id",column="price",task="click",windows=["1d","ever"]}',
        'candidates.last_age={kind="number",make="last",per="category",column="price",windows=["1d","ever"]}',
        'candidates.hot={kind="number",make="rate",per="item_id",task="click",half_life="6h"}',
        'context.busy={kind="number",make="count",per="user_id",half_life="1d"}',
        'candidates.bought={kind="number",make="count",per="item_id",matching="seller_id",windows=["1d","ever"]}',
        'candidates.views={kind="number",make="expected",per="item_id",windows=["1d","ever"]}',
        'candidates.coec={kind="number",make="coec",per="item_id",task="click",windows=["1d","ever"]}',
        'context.coec_user={kind="number",make="coec",per="user_id",task="click"}',
        'context.joined={kind="number",make="since_first"}',
        'context.waits={kind="ids",make="gaps",task="click"}',
    ],
)
ROWS = 1500  # impressions in a slice: six of train


@pytest.fixture(scope="module")
def logs():
    return sources.read(SHOP, Path())


def written(logs, out, **how):
    """Every file of DATA, by name, with its bytes."""
    build.build(SHOP, logs, out, progress=Silent(), how=BuildOptions(rows=ROWS, **how))
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def expected(logs, tmp_path_factory):
    return written(logs, tmp_path_factory.mktemp("expected") / "data", engine="serial")


def test_parts_are_several(expected):
    """A build of so many impressions is divided, or the tests below would show nothing."""
    assert sum(name.startswith("train/") for name in expected) > 4


class Backwards:
    """An engine that runs the last task first."""

    def __init__(self, workers):
        self.workers = workers

    def run(self, task, job, indices):
        for index in reversed(indices):
            yield index, task(job, index)

    def close(self):
        """Nothing is open."""


def test_an_engine_of_tasks_changes_no_byte(logs, expected, tmp_path):
    """Sweeps by key and bucket, put together again: the same files, the store's first rows among them."""
    engine = f"{__name__}:Backwards"
    assert written(logs, tmp_path / "data", engine=engine) == expected


def test_a_state_is_one_sweeps(logs, tmp_path):
    """What `--snapshot` adds is made by threads, and the same by one core; an engine of tasks says so."""
    made = [written(logs, tmp_path / who, snapshot=True, engine=who) for who in ("serial", "threads")]
    assert any(name.startswith("state/") for name in made[0])
    assert made[0] == made[1]
    with pytest.raises(SpecError, match="--snapshot: a store's state is one sweep's; make it with --engine threads"):
        written(logs, tmp_path / "data", engine=f"{__name__}:Backwards", snapshot=True)


@pytest.mark.slow
def test_threads_change_no_byte(logs, expected, tmp_path):
    """Two threads."""
    assert written(logs, tmp_path / "data", engine="threads", workers=2) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_changes_no_byte(logs, expected, tmp_path):
    """A cluster of two nodes with one worker each."""
    pytest.importorskip("ray", reason="needs Ray: the extra ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        assert written(logs, tmp_path / "data", engine="ray") == expected
    finally:
        cluster.shutdown()


def killed(_job, index):
    """A task whose second is ended by the system, as where memory is short."""
    if index:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_worker_that_is_killed_ends_the_step_with_the_reason():
    """What was done before has been handed on, and the error is one that the command line explains."""
    pytest.importorskip("ray", reason="needs Ray: the extra ray")
    done = []
    with engine("ray", workers=1) as cluster:
        done.extend(cluster.run(killed, None, [0]))
        with pytest.raises(OSError, match=r"the Ray cluster ended before it was done: .* What is done is kept"):
            done.extend(cluster.run(killed, None, [1]))
    assert done == [(0, 0)]


class StoppedError(Exception):
    """What ends a build before its time."""


class StopsAt(Silent):
    """Interrupts a build after so many rows."""

    def __init__(self, tasks):
        self.left = tasks

    def advance(self, units, **figures):
        self.left -= units
        if self.left < 0:
            raise StoppedError


@pytest.mark.parametrize("tasks", [0, ROWS, 4 * ROWS + 9])
def test_an_interrupted_build_goes_on_to_the_same_bytes(logs, expected, tmp_path, tasks):
    """Killed after any slice, DATA holds no tables, and the same call finishes it without doing it again."""
    out = tmp_path / "data"
    with pytest.raises(StoppedError):
        build.build(SHOP, logs, out, progress=StopsAt(tasks), how=BuildOptions(rows=ROWS, engine="serial"))
    assert not (out / "manifest.json").exists()
    (out / "notes.txt").write_text("mine")
    files = written(logs, out, engine="serial")
    assert files.pop("notes.txt") == b"mine", "what a person put there is kept"
    assert files == expected
    assert not list(tmp_path.glob(".*")), "the work is removed when it is done"


def test_a_build_that_ends_at_its_last_moment_goes_on(logs, expected, tmp_path, monkeypatch):
    """Everything is written and nothing in place yet: the work is still whole."""
    finished = build.finish

    def ends(*arguments):
        finished(*arguments)
        raise StoppedError

    out = tmp_path / "data"
    monkeypatch.setattr(build, "finish", ends)
    with pytest.raises(StoppedError):
        written(logs, out, engine="serial")
    monkeypatch.undo()
    assert not (out / "manifest.json").exists()
    assert written(logs, out, engine="serial") == expected


def test_what_was_finished_is_not_done_again(tmp_path):
    """A step asks its engine only for tasks without a result."""
    done = []
    steps = StepRunner(SerialExecutor(), tmp_path, Silent())
    assert steps.run("step", lambda _, index: done.append(index) or index * 2, None, 3) == [0, 2, 4]
    (tmp_path / "step" / "00001.json").unlink()
    assert steps.run("step", lambda _, index: done.append(index) or index * 2, None, 3) == [0, 2, 4]
    assert done == [0, 1, 2, 1]


def test_what_follows_a_task_comes_before_its_result_is_kept(tmp_path):
    """A task whose result could not be brought to safety is done again."""
    done, safe = [], []

    def after(result):
        if len(done) == 2:
            raise StoppedError
        safe.append(result)

    steps = StepRunner(SerialExecutor(), tmp_path, Silent())
    for _ in range(2):
        with suppress(StoppedError):
            steps.run("step", lambda _, index: done.append(index) or index * 2, None, 3, after=after)
    assert (done, safe) == ([0, 1, 1, 2], [0, 2, 4])


def test_what_was_written_of_an_interrupted_build_is_not_written_again(logs, expected, tmp_path, monkeypatch):
    """A slice that is done is swept, because the sweep needs it, and no more."""
    out, done = tmp_path / "data", []
    with pytest.raises(StoppedError):
        build.build(SHOP, logs, out, progress=StopsAt(4 * ROWS), how=BuildOptions(rows=ROWS, engine="serial"))
    kept = sorted(file.name for file in (out / ".work" / "steps" / "slices").iterdir())
    honest = replay.assemble
    monkeypatch.setattr(
        replay, "assemble", lambda job, made, *more: done.append(made.number) or honest(job, made, *more)
    )
    assert written(logs, out, engine="serial") == expected
    assert kept[:2] == ["00000.json", "00001.json"]
    assert not {f"{number:05d}.json" for number in done} & set(kept)


def test_work_made_from_something_else_is_not_used(logs, expected, tmp_path):
    """Of other files it is refused, or removed with `overwrite`; of other slices it is begun again."""
    out = tmp_path / "data"
    with pytest.raises(StoppedError):
        build.build(SHOP, logs, out, progress=StopsAt(ROWS), how=BuildOptions(rows=ROWS, engine="serial", stamp="old"))
    with pytest.raises(
        FileExistsError, match=r"holds what `multigate features` began .* \(of another files of the logs\)"
    ):
        written(logs, out, engine="serial")
    assert written(logs, out, engine="serial", stamp="old").keys() == expected.keys()
    assert written(logs, out, engine="serial", overwrite="always") == expected


@pytest.mark.parametrize("who", ["serial", "threads"])
def test_an_error_in_a_task_is_ours_whoever_runs_it(logs, tmp_path, who):
    """A request id that two users share is found by a task, and told by the build."""
    rows = logs.impressions[0].frame.collect().with_columns(request_id=pl.lit("same"))
    with pytest.raises(DataError, match="request ids have several users"):
        build.build(
            SHOP,
            Logs.whole(rows.lazy(), logs.users.frame, logs.items.frame),
            tmp_path / "data",
            progress=Silent(),
            how=BuildOptions(engine=who, rows=ROWS),
        )


def test_engines_are_chosen_by_how_many_cores_there_are():
    """With one worker nothing is gained by threads."""
    with engine("auto", workers=1) as alone:
        assert isinstance(alone, SerialExecutor)
    with engine("auto", workers=2) as several:
        assert isinstance(several, ThreadExecutor)


def test_a_cluster_without_ray_says_what_to_install(monkeypatch):
    """The command, with the file of exact versions."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r"engine \"ray\" needs Ray: `pip install 'multigate\[ray\]'`"), engine("ray"):
        pass
