"""`multigate run` does what is not there yet, and throws away only what is of something else, after it said so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from features.pipeline import build
from pipelines.cli import fingerprint, run
from rec import spec as specs
from rec.errors import DataError
from rec.output_folder import refuse_overlap
from rec.progress import Silent
from rec.training import trainer

AFTER = ["exporting"] * 3 + ["scoring", "evaluating"]  # what is begun after training


class Told(Silent):
    """Keeps what is said, and what is begun."""

    def __init__(self):
        self.lines, self.begun = [], []

    def say(self, line):
        self.lines.append(line)

    def start(self, what, total=None, unit=""):
        self.begun.append(what.split()[0])


@pytest.fixture(scope="module")
def finished(spec, tmp_path_factory):
    """A spec and the folder of its finished run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.toml").write_text(specs.dump(spec))
    run.run(folder / "tiny.toml", ["train.epochs=1"], folder / "out", Silent())
    return folder / "tiny.toml", folder / "out"


@pytest.fixture
def ready(finished, tmp_path):
    """The same, to be spoiled."""
    return finished[0], shutil.copytree(finished[1], tmp_path / "out")


def again(ready, *overrides, force=False):
    """What a run of a changed spec says and begins."""
    progress = Told()
    run.run(ready[0], ["train.epochs=1", *overrides], ready[1], progress, force=force)
    return progress


def test_a_finished_run_says_so_and_does_nothing(ready):
    """One line, and no step is begun."""
    progress = again(ready)
    assert progress.begun == []
    assert progress.lines == [f"{ready[1]}: what `multigate run` wrote for spec 'tiny-shop' is here already"]


def test_another_part_of_the_spec_is_refused_by_name(ready):
    """Nothing is thrown away before somebody says so."""
    before = {file: file.stat().st_mtime_ns for file in ready[1].rglob("*")}
    with pytest.raises(FileExistsError, match=r"\(of another \[model\]\); give another --out, or --force to make it"):
        again(ready, "model.experts=3")
    assert {file: file.stat().st_mtime_ns for file in ready[1].rglob("*")} == before


@pytest.mark.parametrize(
    ("override", "redone", "begun"),
    [
        ("model.experts=3", ["model", "bundle", "scores"], ["epoch", "validation", *AFTER]),
        ("serve.max_candidates=9", ["bundle", "scores"], AFTER),
        ('evaluate.weight="equal"', ["bundle", "scores"], AFTER),
    ],
)
def test_force_makes_again_what_a_part_of_the_spec_changes(ready, override, redone, begun):
    """Another model keeps the tables; limits of serving, and how groups are weighted, keep the trained model too."""
    progress = again(ready, override, force=True)
    assert progress.begun == begun
    again_made = [line.split(": ")[0] for line in progress.lines if ": removing " in line or ": making again " in line]
    assert again_made == [str(ready[1]), *(str(ready[1] / name) for name in redone)]


def test_a_version_of_a_step_decides_and_is_said(ready, monkeypatch):
    """Not the bytes of the source: the number beside the step, named with what it was."""
    monkeypatch.setattr(trainer, "VERSION", trainer.VERSION + 1)
    with pytest.raises(FileExistsError, match=rf"\(of another training version {trainer.VERSION - 1}\)"):
        again(ready)
    progress = again(ready, force=True)
    up_to_date = f"{ready[1] / 'data'}: what `multigate features` wrote for spec 'tiny-shop' is here already"
    assert any(line.startswith(up_to_date) for line in progress.lines)
    assert progress.begun[0] == "epoch"


def test_a_version_of_the_features_makes_tables_again(ready, monkeypatch):
    """Said before it happens; a model of tables that come out the same is kept."""
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    progress = again(ready, force=True)
    expected = (
        f"{ready[1] / 'data'}: making again what `multigate features` wrote for spec 'tiny-shop' (of another features"
    )
    assert any(line.startswith(expected) for line in progress.lines)
    assert "session" in progress.begun
    assert "epoch" not in progress.begun


def test_a_step_that_was_removed_is_made_again(ready):
    """A record is no result."""
    shutil.rmtree(ready[1] / "scores")
    assert again(ready).begun == ["scoring", "evaluating"]


def test_a_folder_of_somebody_else_is_refused(ready, tmp_path):
    """With --force, too."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt, which no verb of multigate wrote"):
        run.run(ready[0], [], tmp_path / "home", Silent(), force=True)


@pytest.mark.parametrize(("source", "out"), [('files = "*.csv"', "."), ('root = "."', "logs/deep")])
def test_logs_and_the_folder_of_a_run_lie_apart(tmp_path, monkeypatch, source, out):
    """Said before anything is read or removed."""
    monkeypatch.chdir(tmp_path)
    text = f'name = "x"\n[source]\nkind = "impressions"\n{source}\n'
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log.csv").write_text("click\n1\n")
    named = fingerprint.inputs(specs.parse(text + '[tasks.click]\nlabel = "click"\n'), tmp_path / "logs")
    with pytest.raises(FileExistsError, match=r"(holds|lies in) what this command reads \(.*logs.*\); give another"):
        refuse_overlap(Path(out), named)


def test_a_changed_log_is_noticed(tmp_path):
    """A file that [source] names, by path or by pattern, counts with its size and time."""
    spec = specs.parse('name = "x"\n[source]\nkind = "impressions"\nfiles = "*.csv"\n[tasks.click]\nlabel = "click"\n')
    log = tmp_path / "log.csv"
    log.write_text("click\n1\n")
    before = fingerprint.of_logs(spec, tmp_path)
    assert fingerprint.of_logs(spec, tmp_path) == before
    log.write_text("click\n1\n0\n")
    assert fingerprint.of_logs(spec, tmp_path) != before


@pytest.mark.parametrize("pattern", ["log/dt=*/a.csv", "log/*/*.csv", "log/**/*.csv", "lo[g]/dt=?/a.csv"])
def test_a_glob_in_the_middle_of_a_path_is_noticed_too(tmp_path, pattern):
    """Its files are inputs, and a new folder is another log; a mark beside the files is not."""
    source = f'name = "x"\n[source]\nkind = "impressions"\nfiles = "{pattern}"\n'
    spec = specs.parse(source + '[tasks.click]\nlabel = "click"\n')
    (tmp_path / "log/dt=1").mkdir(parents=True)
    (tmp_path / "log/dt=1/a.csv").write_text("click\n1\n")
    before = fingerprint.of_logs(spec, tmp_path)
    assert fingerprint.inputs(spec, tmp_path) == [tmp_path / "log/dt=1/a.csv"]
    (tmp_path / "log/dt=1/_SUCCESS").write_text("")
    (tmp_path / "log/dt=1/_part.csv").write_text("")
    assert fingerprint.of_logs(spec, tmp_path) == before
    (tmp_path / "log/dt=2").mkdir()
    (tmp_path / "log/dt=2/a.csv").write_text("click\n0\n")
    assert fingerprint.of_logs(spec, tmp_path) != before


@pytest.mark.parametrize("last", ["2026-03-08", "2100-01-01"])
def test_a_run_without_a_test_split_is_evaluated_on_validation_or_ends_early(spec, tmp_path, last):
    """It says so before anything is trained."""
    (tmp_path / "tiny.toml").write_text(specs.dump(spec))
    progress, changes = Told(), ["train.epochs=1", f"split.validation={last}", "split.test=2100-01-02"]
    if last == "2100-01-01":
        with pytest.raises(DataError, match=r"validation and test have no request, .*see \[split\]"):
            run.run(tmp_path / "tiny.toml", changes, tmp_path / "out", progress)
        assert "epoch" not in progress.begun
    else:
        report = run.run(tmp_path / "tiny.toml", changes, tmp_path / "out", progress)
        assert report["split"] == "validation"
        assert any("test: no request, so the report is on validation" in line for line in progress.lines)
