"""What is shown while logs are copied."""

from __future__ import annotations

import duckdb
import fsspec
import pytest

from features.logs import copies
from features.logs.copies import copies_of
from rec.progress import Silent

BLOCK = 8 << 20  # bytes


class Shown(Silent):
    """What begins, and the units that are done of it."""

    def __init__(self):
        self.begun: list[tuple[str, int | None, str]] = []
        self.done: list[int] = []

    def start(self, what, total=None, unit=""):
        self.begun.append((what, total, unit))

    def advance(self, units, **figures):
        self.done.append(units)


@pytest.fixture
def shown():
    """A progress that shows what is copied."""
    copies.forget()
    progress = Shown()
    with copies.shown_by(progress):
        yield progress


def test_a_large_file_of_a_store_is_shown_block_by_block(tmp_path, shown):
    """Of all bytes; a second look copies nothing and shows nothing."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/big/a.csv", b"a\n" * BLOCK)
    memory.pipe("/big/b.csv", b"a\n1\n")
    copies_of("memory://big/*.csv", tmp_path, "x")
    assert shown.begun == [("copying 2 files of memory://big/*.csv", 2 * BLOCK + 4, "bytes")]
    assert sorted(shown.done) == [4, BLOCK, BLOCK]
    copies_of("memory://big/a.csv", tmp_path, "x")
    assert len(shown.begun) == 1


def test_a_table_of_a_database_is_shown_by_its_rows(tmp_path, shown):
    """How many there will be nobody knows; a long query is cut."""
    duckdb.connect(tmp_path / "shop.db").execute("CREATE TABLE t AS SELECT range AS item FROM range(250000)").close()
    address = "duckdb:shop.db?query=SELECT item FROM t WHERE" + " item >= 0 AND" * 20 + " item >= 0"
    copies_of(address, tmp_path, "x")
    ((what, total, unit),) = shown.begun
    assert (what[:50], what[-3:], len(what) <= 110, total, unit) == (
        f"copying {address[:42]}", "...", True, None, "rows"
    )  # fmt: skip
    assert shown.done == [100_000, 100_000, 50_000]
    copies_of(address, tmp_path, "x")
    assert len(shown.begun) == 1


def test_nothing_is_shown_where_nobody_looks(tmp_path, shown):
    """Outside of the block that says who looks."""
    with copies.shown_by(Silent()):
        fsspec.filesystem("memory").pipe("/big/c.csv", b"a\n1\n")
        copies_of("memory://big/c.csv", tmp_path, "x")
    assert shown.begun == []
