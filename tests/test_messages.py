"""Bad input of every kind, through the command line: where, what was expected, what came, and the exit code."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from pipelines.cli import main

SPEC = """
name = "small"
[source]
kind = "impressions"
files = "log.csv"
[keys]
user = "user_id"
item = "item_id"
time = "time"
[split]
validation = 2026-03-03T00:00:00Z
test = 2026-03-04T00:00:00Z
[context]
user_id = { kind = "id" }
[candidates]
item_id = { kind = "id" }
price = { kind = "number" }
[tasks.click]
label = "click"
"""
LOG = "user_id,item_id,time,price,click\n" + "".join(
    f"{n % 5},{n % 7},2026-03-0{1 + n % 5}T10:00:{n % 60:02d},{n}.5,{n % 2}\n" for n in range(60)
)


@pytest.fixture
def small(tmp_path):
    """A folder with a good spec and a good log, to be spoiled."""
    (tmp_path / "small.toml").write_text(SPEC)
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path


@pytest.fixture
def run_command(capsys):
    """What a command line says on stderr, and its exit code."""

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main.main([str(word) for word in words])
        return left.value.code, capsys.readouterr().err.removesuffix("\n")

    return run


def test_good_input_is_accepted(small, run_command):
    """The folder that the tests below spoil is right before."""
    assert run_command("check", small / "small.toml")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('label = "click"', 'lable = "click"', "tasks.click.lable: unknown key; did you mean 'label'?"),
        (
            'kind = "number"',
            'kind = "numbre"',
            "candidates.price.kind: expected one of id, ids, number, vector, kept, got 'numbre'",
        ),
        ('label = "click"', "label = 3", "tasks.click.label: expected a valid string, got 3"),
        ('name = "small"', "", "name: required, but not given"),
        ('user = "user_id"', 'user = "user"', "keys.user: 'user' is not in [context]"),
        ("[keys]", "[keys", "not TOML"),
        (
            'label = "click"',
            'label = "click"\ngiven = "clik"',
            "tasks.click.given: no task 'clik'; did you mean 'click'?",
        ),
    ],
)
def test_a_wrong_spec(small, run_command, old, new, message):
    """The path of the key and the nearest match; exit 2."""
    (small / "small.toml").write_text(SPEC.replace(old, new))
    code, text = run_command("check", small / "small.toml")
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "--set train.lr: expected section.key=value, such as train.lr=1e-3"),
        ("train.lr=fast", "train.lr: expected a valid number, got 'fast'"),
        ("train.epohcs=3", "train.epohcs: unknown key; did you mean 'epochs'?"),
        ("name.x=3", "--set name.x=3: name is a value, not a table"),
    ],
)
def test_a_wrong_override(small, run_command, override, message):
    """--set goes through the same strict builder as the file."""
    code, text = run_command("check", small / "small.toml", "--set", override)
    assert code == 2
    assert message in text


def test_a_missing_log(small, run_command):
    """The file that is not there, and one that is."""
    (small / "log.csv").rename(small / "logs.csv")
    code, text = run_command("check", small / "small.toml")
    assert code == 3
    assert text == f"multigate: source.files: no file {small / 'log.csv'}; did you mean 'logs.csv'?"


def test_an_empty_log(small, run_command):
    """A header without rows."""
    (small / "log.csv").write_text(LOG.splitlines()[0] + "\n")
    code, text = run_command("features", small / "small.toml", "--out", small / "data")
    assert code == 3
    assert "log.csv: expected at least one row, got an empty file" in text
    assert not (small / "data").exists()


def test_a_column_that_is_not_there(small, run_command):
    """The column, where it was looked for, and the nearest one."""
    (small / "log.csv").write_text(LOG.replace("price", "prize", 1))
    code, text = run_command("features", small / "small.toml", "--out", small / "data")
    assert code == 2
    assert "price" in text
    assert "did you mean 'prize'?" in text


def test_a_log_that_fails_a_check(small, run_command):
    """Tables are not made of it, and every failed check is told."""
    (small / "log.csv").write_text(LOG + "1,2,2199-01-01T00:00:00,3.5,0\n")
    code, text = run_command("features", small / "small.toml", "--out", small / "data")
    assert code == 3
    assert "the checks failed:\n  impressions: " in text
    assert "in the future: a clock is wrong; left out; 1.64% of the rows cannot be used, logs.bad_rows allows" in text
    assert "; such as user_id=1 item_id=2 time=2199-01-01T00:00:00 (log.csv)" in text
    assert not (small / "data").exists()


def test_a_truncated_parquet(small, run_command):
    """Half a file is no file."""
    pl.read_csv(small / "log.csv").write_parquet(small / "log.parquet")
    whole = (small / "log.parquet").read_bytes()
    (small / "log.parquet").write_bytes(whole[: len(whole) // 2])
    (small / "small.toml").write_text(SPEC.replace("log.csv", "log.parquet"))
    code, text = run_command("check", small / "small.toml")
    assert code == 3
    assert "truncated, or not a .parquet file" in text


def test_data_that_was_never_made(small, run_command):
    """Training without session tables says how to make them."""
    code, text = run_command("train", small / "small.toml", "--data", small / "none", "--out", small / "run")
    assert code in (3, 4)
    assert str(small / "none") in text


def test_a_bundle_with_one_byte_changed(bundle, tmp_path, run_command):
    """Nothing of it is used; exit 4."""
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    graph = bytearray((changed / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (changed / "model.onnx").write_bytes(graph)
    code, text = run_command("rank", changed, tmp_path / "none.json")
    assert (code, text.partition(": ")[0]) == (5, "multigate")
    (tmp_path / "request.json").write_text("{}")
    code, text = run_command("rank", changed, tmp_path / "request.json")
    assert code == 4
    assert text.endswith("model.onnx was changed: its sha256 is not the manifest's")


@pytest.fixture
def ranked(bundle, tmp_path, capsys):
    """What `multigate rank` makes of a request: its exit code, the answer, and what it said."""

    def run(request: object) -> tuple[int, dict, str]:
        file = tmp_path / "request.json"
        file.write_text(request if isinstance(request, str) else json.dumps(request))
        with pytest.raises(SystemExit) as left:
            main.main(["rank", str(bundle), str(file), "--json"])
        printed = capsys.readouterr()
        return left.value.code, json.loads(printed.out or "{}"), printed.err

    return run


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ('{"context": ', "body: "),
        ({"context": {"user_id": "bob"}, "candidates": []}, "context.user_id: expected an id"),
        ({"context": {"user_di": 1}, "candidates": []}, "did you mean 'user_id'?"),
        ({"context": {"user_id": 1}, "candidates": [{"item_id": 1}] * 10_000}, "at most 2000"),
        ('{"context": {"user_id": 1}, "candidates": [{"item_id": 1, "price": NaN}]}', "body: "),
    ],
)
def test_a_wrong_request(ranked, request_, message):
    """Malformed JSON, a wrong type, an unknown name, 10,000 candidates, NaN; exit 3."""
    code, answer, text = ranked(request_)
    assert (code, answer) == (3, {})
    assert message in text


def test_no_candidates_is_an_empty_answer(ranked):
    """Nothing to rank is not a mistake."""
    code, answer, _ = ranked({"context": {"user_id": 1}, "candidates": []})
    assert (code, answer["candidates"]) == (0, [])


def test_unknown_users_and_items_are_ranked_and_named(ranked):
    """They get the scores of the unknown, and the answer says so."""
    code, answer, _ = ranked({"context": {"user_id": 10**9}, "candidates": [{"item_id": 10**9}, {"item_id": 1}]})
    assert code == 0
    assert answer["degraded"]["reasons"] == ["user_unknown", "item_unknown"]
    assert len(answer["candidates"]) == 2
