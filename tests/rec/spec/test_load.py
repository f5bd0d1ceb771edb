"""A spec is read from a file as it is written by whatever editor."""

from __future__ import annotations

from rec import spec as specs
from tests.rec.spec.test_spec import MINIMAL


def test_a_byte_order_mark_is_no_part_of_a_spec(tmp_path):
    """Some editors begin a file with one."""
    (tmp_path / "x.toml").write_text(MINIMAL, encoding="utf-8-sig")
    assert specs.load(tmp_path / "x.toml") == specs.parse(MINIMAL)
