"""Parts of another, installed package: a model, an objective, a source and an executor, from logs to scores."""

from __future__ import annotations

import json
import sys

import pytest

from pipelines.cli import main
from serving import bundle as bundles

PACKAGE = '''
"""Parts for Multigate by somebody else."""

import polars as pl
from pydantic import Field
from torch import nn

from features.logs.logs import Logs
from rec.losses.task_losses import task_losses
from rec.modules.config import ModelConfig
from rec.modules.linear import PairLinear
from rec.spec import Strict


class Model(nn.Module):
    class Config(ModelConfig):
        hidden: int = Field(default=4, description="width")

    def __init__(self, config, *, context, candidate, tasks):
        super().__init__()
        self.width, self.tasks = config.hidden, len(tasks)
        self.linear = PairLinear(context, candidate, self.width * self.tasks)

    def forward(self, context_BC, candidate_ND, owner_N):
        hidden = self.linear(context_BC, candidate_ND, owner_N)
        return hidden.unflatten(1, (self.tasks, self.width)).transpose(0, 1).relu()


class Objective(nn.Module):
    class Config(Strict):
        factor: float = 1.0

    def __init__(self, config, *, heads, tasks):
        super().__init__()
        self.heads, self.tasks, self.factor = heads, dict(tasks), config.factor

    def forward(self, hidden_TNH):
        return self.heads(hidden_TNH)

    def losses(self, hidden_TNH, labels):
        losses = task_losses(self.heads(hidden_TNH), labels, self.tasks)
        return {name: loss * self.factor for name, loss in losses.items()}


class Source:
    class Config(Strict):
        rows: int

    def __init__(self, config, spec):
        self.rows, self.keys = config.rows, spec.keys

    def read(self, base):
        row = pl.int_range(self.rows, eager=True)
        return Logs.whole(
            pl.DataFrame(
                {
                    self.keys.user: row % 7,
                    self.keys.item: row * 5 % 11,
                    self.keys.time: row * 600,
                    "clicked": ((row * 5 % 11 < 4) ^ (row % 5 == 0)).cast(pl.Int8),
                }
            ).lazy()
        )


class Executor:
    """Backwards, one after the other."""

    def __init__(self, workers):
        assert workers >= 1

    def run(self, task, job, indices):
        for index in reversed(indices):
            yield index, task(job, index)

    def close(self):
        self.closed = True
'''
SPEC = """
name = "of-others"
[source]
kind = "their_logs"
rows = 600
[keys]
user = "user"
item = "item"
time = "time"
[split]
validation = 1970-01-03T12:00:00Z
test = 1970-01-04T00:00:00Z
[context]
user = { kind = "id", dim = 4 }
[candidates]
item = { kind = "id", dim = 4 }
[tasks.click]
label = "clicked"
[model]
name = "their_model"
hidden = 6
tower_widths = [4]
[objective]
name = "their_parts:Objective"
factor = 0.5
[train]
epochs = 1
batch = 128
device = "cpu"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package in a folder of its own on the path, with the entry points an installer writes."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "their_parts.py").write_text(PACKAGE)
    described = folder / "their_parts-2.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 2.0\n")
    (described / "entry_points.txt").write_text(
        "[multigate.models]\ntheir_model = their_parts:Model\n"
        "[multigate.objectives]\ntheir_objective = their_parts:Objective\n"
        "[multigate.sources]\ntheir_logs = their_parts:Source\n"
        "[multigate.executors]\nbackwards = their_parts:Executor\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("their_parts", None)


def left(*arguments: object) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as stopped:
        main.main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.fixture(scope="module")
def exported(installed, tmp_path_factory):
    """Session tables, a run and a bundle made with all four parts."""
    out = tmp_path_factory.mktemp("of-others")
    spec = out / "spec.toml"
    spec.write_text(SPEC)
    assert left("features", spec, "--out", out / "data", "--engine", "backwards") == 0
    assert left("train", spec, "--data", out / "data", "--out", out / "run") == 0
    assert left("export", out / "run", "--data", out / "data", "--out", out / "bundle") == 0
    return out


def test_their_parts_go_from_logs_to_scores(exported):
    """Like ours: one logs, trains, exports, scores and evaluates with them."""
    assert left("score", exported / "bundle", "--data", exported / "data", "--out", exported / "scores") == 0
    assert left("evaluate", exported / "run", "--data", exported / "data") == 0
    report = json.loads((exported / "run" / "report.json").read_text())
    assert report["outputs"]["click"]["candidates"] > 0


def test_the_executor_changes_nothing_of_the_tables(exported):
    """Who does the work is not seen in what is written."""
    path = "their_parts:Executor"
    assert left("features", exported / "spec.toml", "--out", exported / "again", "--engine", path) == 0
    assert left("features", exported / "spec.toml", "--out", exported / "serial", "--engine", "serial") == 0
    tables = sorted(path.relative_to(exported / "serial") for path in (exported / "serial").rglob("*.arrow"))
    assert tables
    for name in ("data", "again"):
        assert all((exported / name / t).read_bytes() == (exported / "serial" / t).read_bytes() for t in tables)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--engine", "backward"], "--engine: no executor 'backward': auto, serial, threads, ray, backwards; did you"),
        (["--engine", "their_parts:Model"], "--engine: 'their_parts:Model': expected a method 'run'"),
        (["--engine", "nowhere:Executor"], "--engine: 'nowhere:Executor': no module 'nowhere' is installed here"),
        (
            ["--set", "source.kind=their_parts:Executor"],
            "source.kind: 'their_parts:Executor': expected a class with Co",
        ),
        (["--set", "source.rosw=3"], "source.rosw: unknown key; did you mean 'rows'?"),
        (["--set", "objective.factr=3"], "objective.factr: unknown key; did you mean 'factor'?"),
        (["--set", "model.hiden=3"], "model.hiden: unknown key; did you mean 'hidden'?"),
    ],
)
def test_their_parts_are_validated_like_ours(exported, arguments, text, capsys):
    """Exit 2, the place and the nearest, and nothing is written."""
    assert left("features", exported / "spec.toml", "--out", exported / "none", *arguments) == 2
    assert text in capsys.readouterr().err
    assert not (exported / "none").exists()


def test_models_lists_them_with_their_package(installed, capsys):
    """Beside ours."""
    assert left("models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["models"]["their_model"] == "their_parts:Model, of the package their-parts"
    assert listed["objectives"]["their_objective"] == "their_parts:Objective, of the package their-parts"
    assert listed["sources"]["their_logs"] == "their_parts:Source, of the package their-parts"
    assert listed["executors"]["backwards"] == "their_parts:Executor, of the package their-parts"


def test_opening_a_bundle_imports_nothing_of_theirs(exported, installed, capsys):
    """A bundle may come from a stranger: it is opened, scored and ranked with where an import would end everything."""
    source = installed / "their_parts.py"
    sys.modules.pop("their_parts", None)
    source.write_text("raise SystemExit('imported')")
    try:
        opened = bundles.load(exported / "bundle")
        assert opened.spec.model["name"] == "their_model"
        again = exported / "scored-again"
        assert left("score", exported / "bundle", "--data", exported / "data", "--out", again) == 0
        assert left("evaluate", exported / "bundle", "--data", exported / "data") == 0
        request = exported / "request.json"
        request.write_text(json.dumps({"context": {"user": 3}, "candidates": [{"item": 1}, {"item": 2}]}))
        assert left("rank", exported / "bundle", request) == 0
        assert "their_parts" not in sys.modules
    finally:
        source.write_text(PACKAGE)
