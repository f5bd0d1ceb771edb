"""`multigate check-model`: a right model passes, and each planted fault is failed by the law whose name says so."""

from __future__ import annotations

import json
import re

import pytest

from pipelines.cli import main
from pipelines.laws import check, drawn
from rec.data.session_table import to_batch
from rec.spec import parse
from tests import ROOT

HERE = "tests.pipelines.laws.planted"
PLANTED = {
    "NotBuilt": ("it is built for any spec", "cannot be built: ValueError: "),
    "TooFew": ("one finite logit per candidate and task", "candidate"),
    "NotANumber": (
        "a child is never likelier than its parent",
        "buy given click: expected P(buy) <= P(click), got nan",
    ),
    "Leaky": ("a request scores the same alone", "of request 0 alone, and in a batch of 6: expected "),
    "Positional": ("candidate order does not matter", "of reversed candidates, and reversed scores: expected "),
    "Squeezed": ("a batch of one works", "expected"),
    "Dead": ("every weight learns", "got none for model.forgotten.weight, model.forgotten.bias"),
    "Branching": ("ONNX gives the same scores", "expected no exception, got "),
}


def left(*arguments: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as stopped:
        main.main(arguments)
    return stopped.value.code


def test_a_model_of_another_package_that_keeps_every_law_passes(capsys):
    """One line per law, exit 0."""
    assert left("check-model", f"{HERE}:Right") == 0
    assert capsys.readouterr().out.splitlines() == [f"PASS  {law}" for law in check.LAWS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmoe", "stem"])
def test_our_own_models_pass(name):
    """As they come, without a setting; tests/rec/models/test_contract.py holds all of them to the same laws."""
    assert [verdict for verdict in check.check(name) if not verdict.passed] == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_failed_by_the_law_whose_name_says_so(name):
    """With what was expected and what came; where the fault allows it, no other law fails."""
    law, text = PLANTED[name]
    # an export takes seconds, and is tried where it is at fault
    tried = [other for other in check.LAWS if law.startswith("ONNX") or not other.startswith("ONNX")]
    verdicts = check.check(f"{HERE}:{name}", tried=tried)
    failed = {verdict.law: verdict.text for verdict in verdicts if not verdict.passed}
    assert text in failed[law]
    if name not in ("TooFew", "NotANumber", "Squeezed"):
        assert list(failed) == [law]


def test_every_law_has_its_planted_fault():
    """A law that nothing breaks might look at nothing."""
    assert {law for law, _ in PLANTED.values()} == set(check.LAWS)


def test_a_broken_law_is_exit_4(capsys):
    """And as JSON, law by law."""
    assert left("check-model", f"{HERE}:Dead", "--json") == 4
    answer = json.loads(capsys.readouterr().out)
    assert [entry["law"] for entry in answer["laws"] if not entry["passed"]] == ["every weight learns"]


def test_settings_are_checked_as_in_a_spec(capsys):
    """--set reaches [model] and [objective]; what is unknown is exit 2."""
    assert left("check-model", "mmoe", "--set", "model.expers=2") == 2
    assert "model.expers: unknown key; did you mean 'experts'?" in capsys.readouterr().err
    assert left("check-model", "mmo") == 2
    assert "did you mean 'mmoe'?" in capsys.readouterr().err
    assert left("check-model", "mmoe", "--set", "objective.name=esm") == 2
    assert "objective.name: no objective 'esm'" in capsys.readouterr().err


@pytest.mark.parametrize("text", drawn.SPECS)
def test_what_is_drawn_is_a_table_of_its_spec(text):
    """The same for a seed; children only where their parents happened."""
    spec = parse(text)
    rows = drawn.rows(spec, 3)
    assert rows.equals(drawn.rows(spec, 3))
    batch = to_batch(rows, spec, check.preprocessors.fit([rows], spec).encoders)
    assert batch.size == drawn.REQUESTS
    for name, task in spec.tasks.items():
        if task.given is not None:
            assert not ((batch.labels[name] > 0) & (batch.labels[task.given] == 0)).any()


def test_the_model_of_the_page_keeps_the_laws(tmp_path, monkeypatch):
    """docs/plugins.md as it stands."""
    (page,) = re.findall(
        r"^```python model\n(.*?)^```", (ROOT / "docs/plugins.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "page_model.py").write_text(page)
    monkeypatch.syspath_prepend(tmp_path)
    assert [verdict for verdict in check.check("page_model:Tower", ["model.hidden=8"]) if not verdict.passed] == []


def test_a_model_that_ends_the_process_fails_in_words(capsys):
    """The command says so, and leaves with its own code."""
    assert left("check-model", f"{HERE}:Leaves") == 4
    assert "expected no exception, got SystemExit: 7" in capsys.readouterr().out
