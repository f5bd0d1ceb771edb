"""Logs that are declared to be in order of time: the same bytes without sorting, and an error where they are not."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.pipeline import build, time_order
from features.pipeline.build import BuildOptions
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import Spec, parse
from tests.features import tiny

FIRST = 1_772_323_200  # 2026-03-01
HOURS = [0, 1, 5, 5, 9, 24, 24, 30, 47, 48]  # of rows; two of one moment meet where files do
ROWS = [(n % 3, 10 + n % 4, FIRST + 3600 * hour, n % 2) for n, hour in enumerate(HOURS)]


def spec(order: str) -> Spec:
    """A log of CSV files; `order` is that of [logs]."""
    text = tiny.SPEC.format(
        context='seen = { kind = "ids", make = "history", last = 3, table = "item" }',
        candidates='n = { kind = "number", make = "rate", per = "item", task = "click" }',
        tasks="", gap=5, window=0,
    )  # fmt: skip
    return parse(f'source = {{ kind = "impressions", files = "day-*.csv" }}\nlogs.order = "{order}"\n{text}')


def written(folder: Path, *, cuts: tuple[int, ...] = (4, 6)) -> None:
    """ROWS as files of these numbers."""
    for number, (begin, end) in enumerate(zip((0, *cuts), (*cuts, len(ROWS)), strict=True)):
        tiny.frame(ROWS[begin:end]).write_csv(folder / f"day-{number}.csv")


def built(described: Spec, logs: Path, out: Path) -> dict[str, bytes]:
    """The bytes of all session tables."""
    how = BuildOptions(engine="serial", rows=3)
    build.build(described, sources.read(described, logs), out, progress=Silent(), how=how)
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("*/part-*.arrow"))}


def test_a_log_in_order_is_read_without_sorting(tmp_path, monkeypatch):
    """Every byte is that of the sorted log; files may be cut anywhere."""
    written(tmp_path)
    expected = built(spec("any"), tmp_path, tmp_path / "sorted")
    assert len(expected) > 1
    monkeypatch.setattr(time_order, "OrderedRows", None)  # what puts rows in order
    looks: list[int] = []
    batches = time_order.reader.batches
    monkeypatch.setattr(
        time_order.reader, "batches", lambda plan, n, *a, **k: looks.append(n) or batches(plan, n, *a, **k)
    )
    assert built(spec("time"), tmp_path, tmp_path / "declared") == expected
    assert looks.count(0) == looks.count(2) - 1  # the last file tells the end of the log, in one reading more
    for file in tmp_path.glob("day-*.csv"):
        file.unlink()
    written(tmp_path, cuts=())
    assert built(spec("time"), tmp_path, tmp_path / "one") == expected


@pytest.mark.parametrize("inside", [True, False])
def test_a_row_out_of_order_is_refused(tmp_path, inside):
    """Inside a file and between two; nothing is left behind."""
    written(tmp_path)
    if inside:
        rows = pl.read_csv(tmp_path / "day-1.csv")
        rows.reverse().write_csv(tmp_path / "day-1.csv")
    else:
        (tmp_path / "day-1.csv").rename(tmp_path / "day-9.csv")
    said = (
        r'impressions: day-1.csv: logs.order = "time", but a row of 2026-03-01T09:00:00.000000Z comes after one of '
        r"2026-03-02T00:00:00.000000Z; without logs.order the log is sorted"
        if inside
        else r"impressions: day-9.csv: .* a row of 2026-03-01T09.* comes after one of 2026-03-03T00"
    )
    with pytest.raises(DataError, match=said):
        built(spec("time"), tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_order_needs_a_time():
    """Refused at once."""
    text = f'logs.order = "time"\n{tiny.SPEC.format(context="", candidates="", tasks="", gap=5, window=0)}'
    without = text.replace(', time = "time"', "").replace(
        "validation = 2026-03-02T00:00:00Z, test = 2026-03-03T00:00:00Z", 'column = "split"'
    )
    with pytest.raises(SpecError, match=r'logs.order: "time" needs keys.time'):
        parse(without)
