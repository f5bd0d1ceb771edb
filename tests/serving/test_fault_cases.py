"""The table in docs/fault-cases.md of who holds which fault: nothing in it is only said."""

from __future__ import annotations

import re

import pytest

from tests import ROOT

CASES = range(1, 55)
ROW = re.compile(r"^\| ([0-9, ]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAME = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`|`(test_\w+)`")
PAGE = (ROOT / "docs" / "fault-cases.md").read_text(encoding="utf-8")
ROWS = {numbers: held for numbers, _, held in ROW.findall(PAGE)}
EXCUSE = re.compile(r"^(no test|none|no remote store|not the endpoint)")


def named(held: str) -> list[tuple[str, str]]:
    """The files and the tests in them that a row names; a test without a file is in the file before it."""
    tests, file, alone = [], "", ""
    for path, test, further in NAME.findall(held):
        if path:
            assert not alone, f"{alone}: no test of it is named"
            file, alone = path, "" if test else path
        if test or further:
            alone = ""
            tests.append((file, test or further))
    assert not alone, f"{alone}: no test of it is named"
    return tests


def unknown(held: str) -> list[str]:
    """The tests that a row names and that are not there."""
    lost = []
    for file, test in named(held):
        path = ROOT / (file if file.startswith("tests/") else f"tests/serving/{file}")
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not re.search(rf"^def {test}\(", text, re.MULTILINE):
            lost.append(f"{file}::{test}")
    return lost


def test_every_case_has_one_row():
    """All of them, once."""
    numbers = [int(number) for row in ROWS for number in row.split(",")]
    assert sorted(numbers) == [*CASES]


@pytest.mark.parametrize("numbers", ROWS)
def test_a_row_names_tests_that_are_there_or_says_why_not(numbers):
    """By file and name; a row without a test gives a reason."""
    held = ROWS[numbers]
    assert unknown(held) == []
    assert named(held) or EXCUSE.match(held)


def test_a_wrong_row_would_be_seen():
    """Another name, another file, a file alone."""
    right = "`server/test_admin.py::test_control_needs_the_token`"
    assert unknown(right) == []
    assert unknown(right.replace("token", "tokens")) == ["server/test_admin.py::test_control_needs_the_tokens"]
    assert unknown(right.replace("test_admin", "test_admins")) == [
        "server/test_admins.py::test_control_needs_the_token"
    ]
    with pytest.raises(AssertionError, match=r"test_rank\.py: no test of it is named"):
        named("`online/test_rank.py`, `online/test_parse.py::test_what_is_no_json_is_400`")
