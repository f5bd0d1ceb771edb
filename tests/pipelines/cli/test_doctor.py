"""The doctor sees what is not as pinned, and says what to do."""

from __future__ import annotations

from pipelines.cli import doctor


def test_pins_are_read_from_the_requirement_sets():
    """The doctor compares with the files that setup installs from."""
    assert doctor.pins("cpu")["torch"] == doctor.pins("cuda")["torch"]
    assert "onnxruntime" in doctor.pins("cpu")
    assert "onnxruntime" not in doctor.pins("cuda")


def test_this_environment_is_well():
    """The environment the tests run in is the one that was pinned."""
    assert [finding for finding in doctor.examine() if not finding["passed"]] == []


def test_another_version_is_named():
    """What was expected, what is there, and the way out."""
    (finding,) = doctor._packages({"click": "0.0.1"})
    assert not finding["passed"]
    assert finding["text"].startswith("expected 0.0.1, got 8.")
    assert finding["text"].endswith("`make setup` installs it")


def test_a_missing_package_is_named():
    """A package nobody installed."""
    (finding,) = doctor._packages({"no-such-package": "1"})
    assert finding["text"] == "expected 1, got nothing; `make setup` installs it"
