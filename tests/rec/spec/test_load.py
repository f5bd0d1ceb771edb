"""A spec is read from a file as it is written by whatever editor."""

from __future__ import annotations

import pytest

from rec import spec as specs
from rec.errors import SpecError
from tests.rec.spec.test_spec import MINIMAL


def test_a_byte_order_mark_is_no_part_of_a_spec(tmp_path):
    """Some editors begin a file with one."""
    (tmp_path / "x.toml").write_text(MINIMAL, encoding="utf-8-sig")
    assert specs.load(tmp_path / "x.toml") == specs.parse(MINIMAL)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 20_000 + "]" * 20_000])
def test_what_no_program_reads_is_a_mistake_of_the_spec(value):
    """A number of thousands of digits, lists in lists without end: in the file, and in --set."""
    with pytest.raises(SpecError, match=r"^spec: not TOML: "):
        specs.parse(f"x = {value}\n{MINIMAL}")
    with pytest.raises(SpecError, match=r"^spec: train\.batch: expected a valid integer"):
        specs.parse(MINIMAL, overrides=[f"train.batch={value}"])


def test_a_spec_in_another_encoding_names_the_line(tmp_path):
    """And the byte."""
    (tmp_path / "x.toml").write_bytes(b"a = 1\n# caf\xe9")
    with pytest.raises(SpecError) as error:
        specs.load(tmp_path / "x.toml")
    assert (
        str(error.value)
        == f"{tmp_path / 'x.toml'}: cannot be read as a spec: line 2: expected UTF-8, got the byte 0xe9"
    )
