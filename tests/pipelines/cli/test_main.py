"""The command line: exit codes, what goes to stdout and stderr, and no traceback for a user's mistake."""

from __future__ import annotations

import errno
import json
import re

import pytest

from pipelines.cli import main
from rec import models, objectives
from rec.errors import BundleError, DataError, SpecError


def left(*arguments: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as error:
        main.main(arguments)
    return error.value.code


def left_by(error: BaseException) -> int:
    """The exit code of work that ends in an error."""

    def work() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        main.guarded(work)
    return stopped.value.code


@pytest.mark.parametrize("verb", sorted(main.cli.commands))
def test_every_verb_explains_itself(verb, capsys):
    """`multigate VERB --help` prints usage to stdout and ends well."""
    assert left(verb, "--help") == 0
    assert capsys.readouterr().out.startswith(f"Usage: multigate {verb}")


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
    said = capsys.readouterr().err
    assert "this is our mistake, not yours: ZeroDivisionError: division by zero" in said
    assert "multigate --debug" in said


def test_debug_shows_the_traceback(tmp_path):
    """With --debug, anywhere on the line, the error itself comes through."""
    with pytest.raises(SpecError):
        main.main(["check", str(tmp_path / "none.toml"), "--debug"])


def test_an_interrupted_run_says_that_its_work_is_kept(capsys):
    """Ctrl-C loses nothing that was finished."""
    assert left_by(KeyboardInterrupt()) == 130
    assert "what was finished is kept" in capsys.readouterr().err


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
    assert "neither a run (checkpoint/) nor a bundle (model.onnx)" in capsys.readouterr().err


def test_models_and_objectives_are_listed(capsys):
    """A heading, and below it a name and one line each."""
    assert left("models") == 0
    above, below = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert (above[0], below[0]) == ("models", "objectives")
    assert [line.split()[0] for line in above[1:]] == list(models.names())
    assert [line.split()[0] for line in below[1:]] == list(objectives.names())
    (mmoe,) = [line for line in above if line.split()[0] == "mmoe"]
    assert re.match(r"  mmoe +Multi-gate mixture of experts", mmoe)


def test_models_are_listed_for_machines(capsys):
    """Two groups by name, as the folders have them."""
    assert left("models", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"models": models.names(), "objectives": objectives.names()}


def test_a_request_from_stdin_that_is_not_json(bundle, tmp_path, capsys):
    """A request at fault is wrong data."""
    request = tmp_path / "request.json"
    request.write_text('{"context": ')
    assert left("rank", str(bundle), str(request)) == 3
    assert "multigate: body: " in capsys.readouterr().err
