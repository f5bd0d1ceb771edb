"""What the verbs print of a build: the card, then what a rule did to rows."""

from __future__ import annotations

from features.logs.logs import Finding
from features.pipeline import repeats
from pipelines.cli import output
from rec.spec import parse

SPEC = parse('name = "x"\ntasks.a.label = "a"')


def found(count: int) -> dict:
    """A finding of duplicates, as a manifest has it."""
    text = "duplicates of another impression in every column that is read, timestamp included: the first is kept"
    (finding,) = repeats.with_warnings(SPEC, [Finding("duplicates", True, count, 1000, ("user=1",), text, "note")])
    return {**vars(finding)}


def test_a_build_tells_what_a_rule_dropped(capsys):
    """With counts and a row, as `check` does; nothing of rules that did nothing."""
    passed = {**found(0), "name": "passed"}
    output.card({"counts": {"train": {"positives": {}, "observed": {}}}, "findings": [passed, found(7)]}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("NOTE  duplicates  7 / 1,000  duplicates of another impression in every column")
    assert lines[-1].strip() == "e.g. user=1"
    assert "passed" not in "".join(lines)


def test_duplicates_beyond_what_may_be_unusable_are_a_warning(capsys):
    """With the setting that keeps them."""
    output.card({"counts": {}, "findings": [found(11)]}, as_json=False)
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith("WARN  duplicates  11 / 1,000")
    assert line.endswith('the first is kept; duplicates = "keep" keeps them')
