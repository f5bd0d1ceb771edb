"""Ctrl-C or SIGTERM in the middle of every verb, in a process of its own: what it says is true, and the same command
goes on.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from features import sources
from features.pipeline import build
from rec import spec as specs
from rec.atomic import RECORD, read_json
from rec.progress import Silent

GOES_ON = {  # what is kept, and that the same command goes on
    "features": "the slices that were written are kept in DATA, and the same command goes on after them",
    "train": "every whole checkpoint is kept in MODEL, and the same command goes on after the last",
    "score": "every whole part is kept in SCORES, and the same command goes on after the last",
    "run": "what was finished is kept in DIR, and the same command goes on from there",
}
IMPORTING = """
import os, signal
from pipelines.cli import main

main.cli.main = lambda *words, **how: exec("os.kill(os.getpid(), signal.SIGINT)")
main.main(["check", "spec.toml"])
"""
NOT_OF_THE_RESULT = {
    "history.json",
    "manifest.json",
    "state.json",
    "watch.jsonl",
}  # hold seconds, or the time of an export


def command(*words: object) -> list[str]:
    """A command line as a process."""
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def interrupted(*words: object, when, by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal as soon as `when` holds of what it said so far."""
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        output = ""
        while not when(output):
            line = process.stderr.readline()
            assert line, f"it ended before it was interrupted:\n{output}"
            output += line
        process.send_signal(by)
        output += process.communicate(timeout=120)[1]
    return process.returncode, output


def finished(*words: object) -> str:
    """Stderr of a command that ends well."""
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def says(pattern: str):
    """Whether a pattern was said."""
    return lambda output: re.search(pattern, output, re.MULTILINE) is not None


def waits_for(path: Path):
    """Whether a file is there, waited for once the work has begun; what is said does not matter."""

    def there(output: str) -> bool:
        while output and not path.exists():
            time.sleep(0.0005)
        return path.exists()

    return there


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a result by name, but those that hold a time."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in NOT_OF_THE_RESULT]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def described(spec, tmp_path_factory) -> Path:
    """The tiny shop as a file, with as many epochs as a finger needs to find Ctrl-C."""
    path = tmp_path_factory.mktemp("interruption") / "tiny.toml"
    settings = spec.train.model_copy(update={"epochs": 12, "patience": 12})
    path.write_text(specs.dump(spec.model_copy(update={"train": settings})))
    return path


@pytest.fixture(scope="module")
def parts(spec, tmp_path_factory) -> Path:
    """Session tables of the tiny shop in many parts."""
    out = tmp_path_factory.mktemp("parts") / "data"
    build.build(spec, sources.read(spec, Path()), out, progress=Silent(), how=build.BuildOptions(rows=60))
    return out


def test_features_go_on_after_the_slices_that_were_written(described, tmp_path):
    """What was written is not written again, and the tables are those of an unbroken build."""
    finished("features", described, "--out", tmp_path / "whole")
    verb = ("features", described, "--out", tmp_path / "broken")
    entry = tmp_path / "broken" / ".work" / "steps" / "slices" / "00000.json"
    code, output = interrupted(*verb, when=lambda said: "session tables" in said and waits_for(entry)(said))
    assert code == 130
    assert output.endswith(f"multigate features: interrupted; {GOES_ON['features']}\n")
    before = entry.stat().st_mtime_ns
    assert not (tmp_path / "broken" / "manifest.json").exists()
    code, _ = interrupted(*verb, when=says(r"^finishing$"))
    assert (code, entry.stat().st_mtime_ns) == (130, before)
    finished(*verb)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert (tmp_path / "broken/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_train_goes_on_after_its_last_whole_epoch(described, data, tmp_path):
    """No epoch is trained twice, and the weights are those of an unbroken training."""
    finished("train", described, "--data", data, "--out", tmp_path / "whole")
    verb = ("train", described, "--data", data, "--out", tmp_path / "broken")
    code, output = interrupted(*verb, when=says(r"^epoch 2: "))
    assert code == 130
    assert output.endswith(f"multigate train: interrupted; {GOES_ON['train']}\n")
    ended = len(re.findall(r"^epoch \d+: ", output, re.MULTILINE))
    assert 2 <= len(read_json(tmp_path / "broken" / "history.json")) < 12
    again = finished(*verb)
    assert f"epoch {ended + 1}: " in again
    assert "epoch 1: " not in again
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_score_goes_on_after_its_last_whole_part(bundle, parts, tmp_path):
    """Parts that were scored are not scored again, and all are those of an unbroken run."""
    finished("score", bundle, "--data", parts, "--split", "train", "--out", tmp_path / "whole")
    out = tmp_path / "broken"
    verb = ("score", bundle, "--data", parts, "--split", "train", "--out", out)
    code, output = interrupted(
        *verb, when=lambda output: "scoring train" in output and waits_for(out / "_parts.json")(output)
    )
    assert code == 130
    assert output.endswith(f"multigate score: interrupted; {GOES_ON['score']}\n")
    before = {name: (out / name).stat().st_mtime_ns for name in read_json(out / "_parts.json")["parts"]}
    assert before
    assert not (out / "_manifest.json").exists()
    finished(*verb)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert contents(out) == contents(tmp_path / "whole")


def test_export_keeps_nothing(run, data, tmp_path):
    """Not even the folder; the same command starts again."""
    verb = ("export", run, "--data", data, "--out", tmp_path / "bundle")
    code, output = interrupted(*verb, when=says(r"^exporting the graph$"))
    assert code == 130
    assert output.endswith("multigate export: interrupted; nothing is kept but what was there before, start it again\n")
    assert list(tmp_path.iterdir()) == []
    finished(*verb)
    assert read_json(tmp_path / "bundle" / RECORD)["finished"]
    assert contents(tmp_path / "bundle")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_bundle_made_again_replaces_the_old_one_only_when_it_is_whole(bundle, run, data, tmp_path, by):
    """However it is stopped, the old one stays as it was, and nothing is left beside it."""
    old = shutil.copytree(bundle, tmp_path / "bundle")
    verb = ("export", run, "--data", data, "--out", old, "--force")
    assert interrupted(*verb, when=says(r"^exporting the graph$"), by=by)[0] == 128 + by
    assert contents(old) == contents(bundle)
    assert (old / RECORD).read_bytes() == (bundle / RECORD).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_tables_made_again_stay_until_the_new_ones_are_whole(described, tmp_path):
    """And only without --force does the command go on: with it, it would begin again."""
    out = tmp_path / "data"
    finished("features", described, "--out", out)
    before = contents(out / "train")
    code, output = interrupted(
        "features", described, "--out", out, "--force", when=says("^session tables$"), by=signal.SIGTERM
    )
    assert code == 143
    assert f"{out}: making again what `multigate features` wrote for spec 'tiny-shop', which stays until" in output
    assert output.endswith("kept in DATA, and the same command without --force goes on after them\n")
    assert contents(out / "train") == before
    assert "going on with what `multigate features` began" in finished("features", described, "--out", out)
    assert not (out / ".work").exists()


def test_a_killed_command_locks_nobody_out(run, data, tmp_path):
    """The system frees the lock, and the next command sweeps what was left."""
    verb = ("export", run, "--data", data, "--out", tmp_path / "bundle")
    interrupted(*verb, when=says(r"^exporting the graph$"), by=signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2  # the lock, and half a bundle
    finished(*verb)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_of_two_commands_that_write_one_folder_the_second_is_refused(run, data, tmp_path):
    """By name and pid of the first, which is not disturbed."""
    words = ("export", run, "--data", data, "--out", tmp_path / "bundle")
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        assert first.stderr.readline() == "exporting the store\n"
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command(*words, "--force"), capture_output=True, text=True, timeout=300, check=False)
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 5)
    assert second.stderr == (
        f"multigate: {tmp_path / 'bundle'}: `multigate export` (pid {first.pid}) is writing it; wait until that has"
        " ended, or give another --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("verb", ["evaluate", "check"])
def test_a_look_keeps_nothing(verb, described, run, parts, tmp_path):
    """`evaluate` and `check` start again."""
    words = {
        "evaluate": ("evaluate", run, "--data", parts, "--split", "train", "--out", tmp_path / "report"),
        "check": ("check", described),
    }
    begun = {"evaluate": r"^evaluating train$", "check": r"^reading$"}
    code, output = interrupted(*words[verb], when=says(begun[verb]))
    assert code == 130
    assert output.endswith(f"multigate {verb}: interrupted; nothing is kept, start it again\n")
    assert list(tmp_path.iterdir()) == []


def test_an_import_is_interrupted_as_everything_else_is(tmp_path):
    """Planted: Ctrl-C while a string is executed, as dataclasses do, under `python -m`."""
    (tmp_path / "importing.py").write_text(IMPORTING)
    done = subprocess.run(
        [sys.executable, "-m", "importing"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == "multigate check: interrupted; nothing is kept, start it again\n"
    assert done.returncode == 130


def test_run_goes_on_where_it_stopped(described, tmp_path):
    """In training, then in the export: the report is that of an unbroken run, and no epoch is trained twice."""
    finished("run", described, "--out", tmp_path / "whole")
    verb = ("run", described, "--out", tmp_path / "broken")
    code, output = interrupted(*verb, when=says(r"^epoch 2: "))
    assert code == 130
    assert output.endswith(f"multigate run: interrupted; {GOES_ON['run']}\n")
    code, output = interrupted(*verb, when=says(r"^exporting the graph$"))
    assert code == 130
    assert "epoch 1: " not in output
    assert finished(*verb).endswith(f"report: {tmp_path / 'broken/report.html'}\n")
    assert read_json(tmp_path / "broken/report.json") == read_json(tmp_path / "whole/report.json")
