"""The command line: exit codes, what goes to stdout and stderr, and no traceback for a user's mistake."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import checkout, main, output
from pipelines.cli.verbs import VERBS
from rec import baselines, models, objectives
from rec.errors import BundleError, DataError, SpecError


def left(*arguments: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as error:
        main.main(arguments)
    return error.value.code


def left_by(error: BaseException, verb: str = "") -> int:
    """The exit code of a verb whose work ends in an error."""

    def work() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        main.guarded(work, verb=verb)
    return stopped.value.code


@pytest.mark.parametrize("verb", [verb for verbs in VERBS.values() for verb in verbs])
def test_every_verb_explains_itself(verb, capsys):
    """`multigate VERB --help` prints usage to stdout and ends well."""
    assert left(verb, "--help") == 0
    assert capsys.readouterr().out.startswith(f"Usage: multigate {verb}")


def test_verbs_are_listed_by_journey(capsys):
    """Start, build, judge, serve, look up; every verb with what it does, on a line of its own."""
    assert left("--help") == 0
    output = capsys.readouterr().out
    headings = re.findall(r"^(\w[\w ]*):$", output, re.MULTILINE)
    assert headings == ["Options", *VERBS]
    for heading, verbs in VERBS.items():
        part = output.split(f"\n{heading}:\n")[1].split("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines()] == list(verbs)
        assert all(re.match(r"  [\w-]+  +[A-Z]", line) for line in part.splitlines())


def test_bench_is_there_only_in_a_checkout(tmp_path, monkeypatch, capsys):
    """Elsewhere it is not listed, and says how to get it; a stranger's package of that name is not taken for ours."""
    stranger = tmp_path / "benchmarks"
    stranger.mkdir()
    (stranger / "__init__.py").write_text("raise RuntimeError('a stranger is imported')")
    (stranger / "main.py").touch()
    assert checkout.here()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    assert not checkout.here()
    assert left("--help") == 0
    assert "bench" not in capsys.readouterr().out
    assert left("bench", "train", "--rows", "1") == 2
    assert (
        "bench is no part of the installed package: clone the repository, run `make setup`" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("x"), 2),
        (DataError("x"), 3),
        (BundleError("x"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_each_kind_of_mistake_has_its_exit_code(error, code, capsys):
    """A script can tell a wrong spec from wrong data, a broken bundle, a full disk and Ctrl-C."""
    assert left_by(error) == code
    assert capsys.readouterr().out == ""


def test_a_users_mistake_is_one_line(capsys):
    """The text of the error, and no traceback."""
    assert left_by(DataError("logs.csv: no column 'clik'; did you mean 'click'?")) == 3
    assert capsys.readouterr().err == "multigate: logs.csv: no column 'clik'; did you mean 'click'?\n"


def test_a_missing_file_is_named(capsys):
    """An operating system's error says which file."""
    left_by(FileNotFoundError(errno.ENOENT, "No such file or directory", "logs.csv"))
    assert capsys.readouterr().err == "multigate: logs.csv: No such file or directory\n"


def test_our_mistake_says_so_and_how_to_report_it(capsys):
    """What nobody expected names itself and the way to its traceback."""
    assert left_by(ZeroDivisionError("division by zero")) == 1
    output = capsys.readouterr().err
    assert "this is our mistake, not yours: ZeroDivisionError: division by zero" in output
    assert "multigate --debug" in output


def test_debug_shows_the_traceback(tmp_path):
    """With --debug, anywhere on the line, the error itself comes through."""
    with pytest.raises(SpecError):
        main.main(["check", str(tmp_path / "none.toml"), "--debug"])


def test_a_verb_that_keeps_nothing_says_so(capsys):
    """Ctrl-C in `check`; what other verbs keep is tried in test_interruption.py."""
    assert left_by(KeyboardInterrupt(), "check") == 130
    assert capsys.readouterr().err == "multigate check: interrupted; nothing is kept, start it again\n"


def test_findings_begin_with_what_is_wrong(capsys):
    """FAIL, then WARN, with examples; what passed is one line, or listed with --all."""
    findings = [
        {"name": "labels", "passed": True, "count": 0, "total": 1, "examples": [], "text": "no label among features"},
        {
            "name": "drift",
            "passed": True,
            "level": "warn",
            "count": 2,
            "total": 9,
            "examples": ["price"],
            "text": "moved",
        },
        {"name": "leaks.click", "passed": False, "count": 1, "total": 9, "examples": ["x 0.99"], "text": "leaks"},
    ]
    output.findings(findings, as_json=False)
    folded = capsys.readouterr().out.splitlines()
    assert folded == [
        "FAIL  leaks.click  1 / 9  leaks",
        "        e.g. x 0.99",
        "WARN  drift        2 / 9  moved",
        "        e.g. price",
        "1 failed, 1 warned, 1 checks passed; --all shows them",
    ]
    output.findings(findings, as_json=False, everything=True)
    listed = capsys.readouterr().out.splitlines()
    assert listed[4:] == ["PASS  labels              no label among features", "1 failed, 1 warned, 1 checks passed"]


def test_tables_are_plain_where_there_is_no_terminal(capsys):
    """No box, no colour, nothing cut short at 80 columns; names to the left, figures to the right."""
    long = "a_task_with_a_name_of_some_length" * 3
    output._table(
        ["output", "AUC", "base rate"], [[long, "0.7", "0.15"], ["buy|click [x]", "0.6392", "n/a"]], "test: 3"
    )
    assert capsys.readouterr().out.splitlines() == [
        "test: 3",
        f"{'output':<{len(long)}}     AUC  base rate",
        f"{long}     0.7       0.15",
        f"{'buy|click [x]':<{len(long)}}  0.6392        n/a",
    ]


@pytest.mark.parametrize("line", [["train"], ["nope"], ["train", "x", "--epochs", "3"], ["serve", "b", "--port", "0"]])
def test_usage_is_exit_2(line, capsys):
    """A missing argument, an unknown verb, an unknown option, a port that is none."""
    assert left(*line) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_spec_that_is_not_there(tmp_path, capsys):
    """The path, and exit 2."""
    assert left("check", str(tmp_path / "none.toml")) == 2
    assert capsys.readouterr().err == f"multigate: {tmp_path / 'none.toml'}: no such spec\n"


def test_evaluating_something_else(tmp_path, capsys):
    """A folder that is neither a run nor a bundle is exit 4."""
    assert left("evaluate", str(tmp_path), "--data", str(tmp_path)) == 4
    assert "neither a trained model (checkpoint/) nor a bundle (model.onnx)" in capsys.readouterr().err


def test_models_and_objectives_are_listed(capsys):
    """A heading, and below it a name and one line each."""
    assert left("models") == 0
    above, between, below, *more = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    headings = ["models", "baselines", "objectives", "sources", "executors"]
    assert [part[0] for part in (above, between, below, *more)] == headings
    assert [line.split()[0] for line in between[1:]] == list(baselines.names()) == ["gbdt", "popularity"]
    assert [line.split()[0] for line in above[1:]] == list(models.names())
    assert [line.split()[0] for line in below[1:]] == list(objectives.names())
    (mmoe,) = [line for line in above if line.split()[0] == "mmoe"]
    assert re.match(r"  mmoe +Multi-gate mixture of experts", mmoe)


def test_models_are_listed_for_machines(capsys):
    """Groups by name, as the folders have them."""
    assert left("models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["models"], listed["objectives"]) == (models.names(), objectives.names())
    assert list(listed["executors"]) == ["auto", "serial", "threads", "ray"]


def test_json_is_all_there_is_on_stdout(bundle, run, data, tmp_path, capsys):
    """Of every verb on results."""
    out, where = tmp_path / "out", ("--data", str(data))
    lines = [
        ("export", run, *where, "--out", out / "bundle"),
        ("score", bundle, *where, "--out", out / "scores"),
        ("score", bundle, *where, "--out", out / "scores"),
        ("evaluate", bundle, *where),
        ("evaluate", run, *where, "--out", out / "report"),
        ("check-model", "shared_bottom"),
    ]
    answers = []
    for line in lines:
        assert left(*map(str, line), "--json") == 0
        answers.append(json.loads(capsys.readouterr().out))
    rows = answers[1]["candidates"]
    assert (answers[1]["scored"], answers[2]["scored"]) == (rows, 0)
    assert left(*map(str, lines[1])) == 0
    said = capsys.readouterr()
    assert said.err.count("is here already") == 1, "once"
    assert said.out.split()[-2:] == ["candidates", f"{rows:,}"], "how much there is; no speed, as nothing was scored"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Expected either FILES or '--data'."),
        (("r.jsonl", "--data", "data"), "Expected either FILES or '--data'."),
        (("r.jsonl", "--split", "test"), "'--split' is for '--data'; of FILES every row is scored."),
        (("--data", "data", "--bad-rows", "0.1"), "'--bad-rows' is for FILES; of session tables no row is put aside."),
    ],
)
def test_session_tables_or_files_are_scored(capsys, words, message):
    """One of the two, with the options that belong to it."""
    assert left("score", "bundle", *words, "--out", "scores") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_files_of_requests_are_scored(bundle, tmp_path, capsys):
    """A bad row is told with its place; with --bad-rows it is counted."""
    good = {"time": "2026-03-09T10:00:00Z", "context": {"user_id": 7}, "candidates": [{"item_id": 3}, {"item_id": 4}]}
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(good)}\n{{}}\n")
    line = ("score", str(bundle), str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "out"))
    assert left(*line) == 3
    assert "r.jsonl: row 2: candidates: expected a list of objects" in capsys.readouterr().err
    assert left(*line, "--bad-rows", "0.5", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [answer[name] for name in ("rejected", "rows", "requests", "candidates")] == [1, 2, 1, 2]


def test_a_request_from_stdin_that_is_not_json(bundle, tmp_path, capsys):
    """A request at fault is wrong data."""
    request = tmp_path / "request.json"
    request.write_text('{"context": ')
    assert left("rank", str(bundle), str(request)) == 3
    assert "multigate: body: " in capsys.readouterr().err


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_nowhere(closed, tmp_path):
    """`multigate rank BUNDLE <&-`, `>&-`, `2>&-`: no mistake of ours, and no file gets its number."""
    words = [sys.executable, "-m", "pipelines.cli", "rank", str(tmp_path)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}{"<" if closed == 0 else ">"}&-', "sh", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr == ("" if closed == 2 else f"multigate: {tmp_path}/manifest.json: missing\n")


def test_a_full_stderr_leaves_the_exit_code(tmp_path):
    """What cannot be said there is no mistake of ours."""
    words = [sys.executable, "-m", "pipelines.cli", "check", str(tmp_path / "none.toml")]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(words, stderr=full, timeout=60, check=False).returncode == 2


def test_a_path_that_is_not_utf_8_is_usage(capsys):
    """No record could name it."""
    assert left("check", "\udcff.toml") == 2
    assert "b'\\xff.toml' is not UTF-8" in capsys.readouterr().err


def test_what_is_no_bundle_says_what_it_is(run, data, capsys):
    """In every verb that takes one."""
    for verb in (("score", "--data", str(data), "--out", "unwritten"), ("rank", __file__), ("serve",)):
        assert left(verb[0], str(run), *verb[1:]) == 4
        assert f"{run}: a trained model, not a bundle; `multigate export {run}" in capsys.readouterr().err
        assert left(verb[0], str(data), *verb[1:]) == 4
        assert f"{data}: session tables, not a bundle; " in capsys.readouterr().err
