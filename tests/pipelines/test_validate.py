"""A spec is validated whole, by what builds it, before any data is read."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipelines import validate
from pipelines.cli import main
from rec.errors import SpecError
from tests import conftest

# a source whose files are not there: whoever reads before validating says so instead
NOWHERE = conftest.SHOP.replace('kind = "shop"\nusers = 120\nitems = 60\ndays = 8\ncandidates = 6', "{source}")
FILES = 'kind = "impressions"\nfiles = "nowhere.csv"'

WRONG = [
    (["model.name=mmo"], "model.name: no model 'mmo': "),
    (["model.name=3"], "model.name: expected a valid string, got 3"),
    (["model.experts=1000000000"], "model.experts: expected less than or equal to 1000, got 1000000000"),
    (["model.experts=0"], "model.experts: expected greater than or equal to 1, got 0"),
    (["model.name=ple", "model.task_experts={clik=2}"], "model"),
    (['model={name="ple",task_experts={clik=2}}'], "model.task_experts.clik: no task 'clik'; did you mean 'click'?"),
    (['model={name="home",groups={a=["click"]}}'], "model.groups: task 'buy' is in no group: a"),
    (['model={name="ple",task_experts=0,shared_experts=0}'], "model.task_experts"),
    (['model.attention={kind="din"}', "context.clicked=false"], "model.attention: expected a list in [context] that"),
    (
        ["model.tower_widths=[1000000, 1000000]"],
        "model: expected at most 10,000,000,000 weights beside the tables, got 2,0",
    ),
    (
        ["model.tower_widths=[2147483647, 2147483647]"],
        "model: expected weights that fit in memory, got widths whose product",
    ),
    (
        ["model.tower_widths=[3000000000]"],
        "model.tower_widths.0: expected less than or equal to 2147483647, got 3000000000",
    ),
    (["objective.name=esm"], "objective.name: no objective 'esm': "),
    (["objective.weight=1"], "objective.weight: unknown key"),
    (["objective.name=aitm", "tasks.buy.space=parent"], "tasks.buy.space: 'parent' does not go with objective 'aitm'"),
    (["source.fils=a"], "source.fils: unknown key; did you mean 'files'?"),
    (["source.kind=shp"], "source.kind: no source 'shp': "),
    (["source.where=1 +"], "source.where: not an SQL expression: "),
    (["source.users_since=t"], "source.users_since: 't' is a column of source.users, which is not given"),
    (["tasks.click.label=a b c d"], "tasks.click.label: not an SQL expression: "),
    (
        ["context.bought={kind='number',column='buy'}"],
        "context.bought: reads 'buy', a column of the label of task 'buy'",
    ),
    (["train.lr=0"], "train.lr: expected greater than 0, got 0"),
]


@pytest.fixture
def spec_file(tmp_path):
    """A spec of logs that are not there."""
    path = tmp_path / "spec.toml"
    path.write_text(NOWHERE.replace("{source}", FILES))
    return path


@pytest.mark.parametrize(("overrides", "text"), WRONG)
def test_every_part_is_validated_by_what_builds_it(spec_file, overrides, text):
    """The file, the place, and the words of the part itself."""
    with pytest.raises(SpecError) as caught:
        validate.load(spec_file, overrides)
    assert str(caught.value).startswith(f"{spec_file}: {text}")


@pytest.mark.parametrize("verb", ["check", "features", "train", "run"])
def test_every_verb_validates_before_it_reads(spec_file, tmp_path, verb, capsys):
    """The logs, and the session tables, are not there; what is told is what is wrong with [model]."""
    more = {"check": [], "train": ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]}
    arguments = more.get(verb, ["--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main.main([verb, str(spec_file), "--set", "model.experts=0", *arguments])
    assert left.value.code == 2
    assert "model.experts: expected greater than or equal to 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", [FILES, 'kind = "shop"\nusers = 20\nitems = 20\ndays = 8'])
def test_session_tables_are_made_while_the_network_is_validated(spec_file, tmp_path, source):
    """Where torch is not imported yet; the mistake is told, whether or not there are logs, and nothing is left."""
    spec_file.write_text(NOWHERE.replace("{source}", source))
    out = tmp_path / "out"
    verb = ["features", str(spec_file), "--set", "model.experts=0", "--out", str(out)]
    code = f"import sys; from pipelines.cli.main import main; assert 'torch' not in sys.modules; main({verb!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert f"{spec_file}: model.experts: expected greater than or equal to 1, got 0" in done.stderr
    assert [path.name for path in out.glob("*") if path.name != ".work"] == []


def test_a_network_process_that_was_killed_decides_nothing(spec_file, monkeypatch):
    """What it would have said is found out here."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    with validate.beside(spec_file) as (_, check):
        check._process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
        check.confirm(wait=True)
    with pytest.raises(SpecError, match=r"model\.experts: expected"), validate.beside(spec_file, ["model.experts=0"]):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_device_is_asked_for_where_the_spec_is_trained(spec_file):
    """Session tables may be made on a machine without the device; a model cannot be trained there."""
    assert validate.load(spec_file, ["train.device=cuda"]).train.device == "cuda"
    with pytest.raises(SpecError, match=r"train\.device: 'cuda' was asked for, but torch sees no CUDA device"):
        validate.load(spec_file, ["train.device=cuda"], trained_here=True)


def test_validating_draws_nothing(spec_file):
    """No random number is taken: a run after it is the run without it."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    validate.load(spec_file)
    assert torch.equal(torch.get_rng_state(), before)
