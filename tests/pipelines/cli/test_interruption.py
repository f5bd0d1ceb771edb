"""Ctrl-C in the middle of every verb, in a process of its own: what it says is true, and the same command goes on."""

from __future__ import annotations

import re
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
    "features": "the steps that ended are kept in DATA, and the same command goes on after them",
    "train": "every whole epoch is kept in MODEL, and the same command goes on after the last",
    "score": "every whole part is kept in SCORES, and the same command goes on after the last",
    "run": "what was finished is kept in DIR, and the same command goes on from there",
}
NOT_OF_THE_RESULT = {"history.json", "manifest.json"}  # hold seconds, or the timestamp of an export


def command(*words: object) -> list[str]:
    """A command line as a process."""
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def interrupted(*words: object, when) -> tuple[int, str]:
    """Exit code and stderr of a command that gets SIGINT as soon as `when` holds of what it said so far."""
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while not when(said):
            line = process.stderr.readline()
            assert line, f"it ended before it was interrupted:\n{said}"
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=120)[1]
    return process.returncode, said


def finished(*words: object) -> str:
    """Stderr of a command that ends well."""
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def says(pattern: str):
    """Whether a pattern was said."""
    return lambda said: re.search(pattern, said, re.MULTILINE) is not None


def waits_for(path: Path):
    """Whether a file is there, waited for once the work has begun; what is said does not matter."""

    def there(said: str) -> bool:
        while said and not path.exists():
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
    build.build(spec, sources.read(spec, Path()), out, progress=Silent(), how=build.BuildOptions(rows=60, partitions=1))
    return out


def test_features_go_on_after_the_steps_that_ended(described, tmp_path):
    """The rows that were read are not read again, and the tables are those of an unbroken build."""
    finished("features", described, "--out", tmp_path / "whole")
    verb = ("features", described, "--out", tmp_path / "broken")
    code, said = interrupted(*verb, when=says(r"^requests$"))
    assert code == 130
    assert said.endswith(f"multigate features: interrupted; {GOES_ON['features']}\n")
    kept = tmp_path / "broken" / ".work" / "steps" / "reading" / "00000.json"
    before = kept.stat().st_mtime_ns
    assert not (tmp_path / "broken" / "manifest.json").exists()
    code, _ = interrupted(*verb, when=says(r"^session tables$"))
    assert (code, kept.stat().st_mtime_ns) == (130, before)
    finished(*verb)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert (tmp_path / "broken/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_train_goes_on_after_its_last_whole_epoch(described, data, tmp_path):
    """No epoch is trained twice, and the weights are those of an unbroken training."""
    finished("train", described, "--data", data, "--out", tmp_path / "whole")
    verb = ("train", described, "--data", data, "--out", tmp_path / "broken")
    code, said = interrupted(*verb, when=says(r"^epoch 2: "))
    assert code == 130
    assert said.endswith(f"multigate train: interrupted; {GOES_ON['train']}\n")
    ended = len(re.findall(r"^epoch \d+: ", said, re.MULTILINE))
    assert 2 <= len(read_json(tmp_path / "broken" / "history.json")) < 12
    again = finished(*verb)
    assert f"epoch {ended + 1}: " in again
    assert "epoch 1: " not in again
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole") | {
        "checkpoint/last/state.json": (tmp_path / "broken/checkpoint/last/state.json").read_bytes()
    }


def test_score_goes_on_after_its_last_whole_part(bundle, parts, tmp_path):
    """Parts that were scored are not scored again, and all are those of an unbroken run."""
    finished("score", bundle, "--data", parts, "--split", "train", "--out", tmp_path / "whole")
    out = tmp_path / "broken"
    verb = ("score", bundle, "--data", parts, "--split", "train", "--out", out)
    code, said = interrupted(*verb, when=lambda said: "scoring train" in said and waits_for(out / "_parts.json")(said))
    assert code == 130
    assert said.endswith(f"multigate score: interrupted; {GOES_ON['score']}\n")
    before = {name: (out / name).stat().st_mtime_ns for name in read_json(out / "_parts.json")["parts"]}
    assert before
    assert not (out / "_manifest.json").exists()
    finished(*verb)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert contents(out) == contents(tmp_path / "whole")


def test_export_keeps_nothing(run, data, tmp_path):
    """Not even the folder; the same command starts again."""
    verb = ("export", run, "--data", data, "--out", tmp_path / "bundle")
    code, said = interrupted(*verb, when=says(r"^exporting$"))
    assert code == 130
    assert said.endswith("multigate export: interrupted; nothing is kept, start it again\n")
    assert list(tmp_path.iterdir()) == []
    finished(*verb)
    assert read_json(tmp_path / "bundle" / RECORD)["finished"]
    assert contents(tmp_path / "bundle")


@pytest.mark.parametrize("verb", ["evaluate", "check"])
def test_a_look_keeps_nothing(verb, described, run, parts, tmp_path):
    """`evaluate` and `check` start again."""
    words = {
        "evaluate": ("evaluate", run, "--data", parts, "--split", "train", "--out", tmp_path / "report"),
        "check": ("check", described),
    }
    begun = {"evaluate": r"^evaluating train$", "check": r"^reading$"}
    code, said = interrupted(*words[verb], when=says(begun[verb]))
    assert code == 130
    assert said.endswith(f"multigate {verb}: interrupted; nothing is kept, start it again\n")
    assert list(tmp_path.iterdir()) == []


def test_run_goes_on_where_it_stopped(described, tmp_path):
    """In training, then in the export: the report is that of an unbroken run, and no epoch is trained twice."""
    finished("run", described, "--out", tmp_path / "whole")
    verb = ("run", described, "--out", tmp_path / "broken")
    code, said = interrupted(*verb, when=says(r"^epoch 2: "))
    assert code == 130
    assert said.endswith(f"multigate run: interrupted; {GOES_ON['run']}\n")
    code, said = interrupted(*verb, when=says(r"^exporting$"))
    assert code == 130
    assert "epoch 1: " not in said
    assert finished(*verb).endswith(f"report: {tmp_path / 'broken/report.html'}\n")
    assert read_json(tmp_path / "broken/report.json") == read_json(tmp_path / "whole/report.json")
