"""Files as they come: a clear report of what is wrong with them, and the good rows kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.logs import files
from features.logs.logs import Finding
from features.logs.reader import findings, plan
from features.logs.timestamps import TIME
from features.pipeline import build
from rec.errors import DataError
from rec.progress import Silent
from rec.spec import Spec, parse
from tests.features.reads import Whole, whole

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = int(NOON.timestamp())
MICRO = SECOND * 10**6
COLUMNS = ["user", "item", "time", "a"]
HEAD = "user,item,time,a\n"
MORE = """
logs.bad_rows = {share}
split = {{ validation = 2026-03-03T00:00:00Z, test = 2026-03-04T00:00:00Z }}
"""


def spec(*, unit: str = "auto", more: str = "") -> Spec:
    """A log of files, read from a folder."""
    return parse(
        f"""
        name = "x"
        source = {{ kind = "impressions", files = "*" }}
        keys = {{ user = "user", item = "item", time = "time", time_unit = "{unit}" }}
        {more}
        [context]
        user = {{ kind = "id" }}
        [candidates]
        item = {{ kind = "id" }}
        [tasks]
        a = {{ label = "a" }}
        """
    )


def good(folder: Path, name: str, rows: int = 1000, **columns: object) -> Path:
    """A Parquet file of rows that are as they should be, but for some columns."""
    table = {"user": range(rows), "item": 10, "time": SECOND, "a": 0, **columns}
    kinds = {
        column: pl.lit(value) if not isinstance(value, range) else pl.Series(value) for column, value in table.items()
    }
    pl.select(pl.int_range(rows).alias("@")).with_columns(**kinds).drop("@").write_parquet(folder / name)
    return folder / name


def read(folder: Path, read_spec: Spec, **more: object) -> tuple[Whole, list[Finding]]:
    """All that is read, and all that is said about files and rows, in order."""
    logs = sources.read(read_spec, folder)
    got = whole(read_spec, logs.impressions, columns=COLUMNS, **more)
    return got, [*logs.findings, *got.findings, *findings(got.bad, read_spec, "impressions")]


def verdicts(findings: list[Finding]) -> list[tuple[bool, str]]:
    """Whether a finding passed, and what it says."""
    return [(finding.passed, finding.text) for finding in findings]


def test_a_file_without_a_column_is_left_out(tmp_path):
    """Which file, which column, and the nearest it has; files may have columns more."""
    good(tmp_path, "a.parquet", rows=100_000, extra=1)
    pl.DataFrame({"user": [1], "itm": [1], "time": [SECOND], "a": [0]}).write_parquet(tmp_path / "b.parquet")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.1"))
    assert len(got.rows) == 100_000
    allowed = "b.parquet: no column 'item'; did you mean 'itm'?; left out"
    assert verdicts(findings) == [(True, allowed), (True, "rows that cannot be used")]
    _, findings = read(tmp_path, spec(more="logs.bad_rows = 0.0"))
    assert not findings[0].passed
    assert findings[0].text.startswith(f"{allowed}; logs.bad_rows allows 0.00%, these are ")


def test_no_file_with_a_column_is_refused(tmp_path):
    """There is nothing to keep."""
    good(tmp_path, "a.parquet")
    described = spec()
    with pytest.raises(DataError, match=r"impressions: a.parquet: no column 'itm'; did you mean 'item'\?"):
        plan(described, sources.read(described, tmp_path).impressions, ["itm"], "impressions")


def test_files_of_different_types_are_read_as_one(tmp_path):
    """Integers of different width, and an id that is a number here and text there."""
    good(tmp_path, "a.parquet", rows=2, user=range(1, 3))
    pl.DataFrame({"user": ["3", "bob"], "item": ["7", "8"], "time": [SECOND] * 2, "a": [1.0, 0.0]}).write_parquet(
        tmp_path / "b.parquet"
    )
    (tmp_path / "c.csv").write_text(HEAD + f"4,9,{SECOND},1\n")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert got.rows.select("user", "item", "a").rows() == [(1, 10, 0), (2, 10, 0), (3, 7, 1), (4, 9, 1)]
    assert verdicts(findings) == [(True, "user: expected an id (int); left out")]
    assert findings[0].examples == (f"got 'bob': user=bob item=8 time={SECOND} (b.parquet)",)


def test_a_late_surprise_in_a_csv_is_a_bad_row(tmp_path):
    """Whatever its first 100,000 rows look like."""
    (tmp_path / "a.csv").write_text(HEAD + f"1,10,{SECOND},0\n" * 100_001 + f"bob,11,{SECOND},0\n2,12,soon,0\n")
    got, findings = read(tmp_path, spec())
    assert len(got.rows) == 100_001
    user, time = findings
    assert verdicts(findings) == [
        (True, "user: expected an id (int); left out"),
        (True, "time: expected a timestamp such as '2026-03-02T08:30:00+00:00'; left out"),
    ]
    assert user.examples == (f"got 'bob': user=bob item=11 time={SECOND} (a.csv)",)
    assert time.examples == ("got 'soon': user=2 item=12 time=soon (a.csv)",)


@pytest.mark.parametrize("name", ["b.parquet", "b.arrow"])
def test_a_truncated_file_among_good_ones_is_left_out(tmp_path, name):
    """The good ones are kept; it fails the check only where it is more than the spec allows."""
    good(tmp_path, "a.parquet", rows=100_000)
    path = good(tmp_path, "b.parquet", rows=10)
    if name == "b.arrow":
        pl.read_parquet(path).write_ipc(tmp_path / name)
        path.unlink()
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.1"))
    assert len(got.rows) == 100_000
    assert findings[0].passed
    assert findings[0].text.startswith(f"{name}: truncated, or not a {path.suffix} file: ")
    assert findings[0].text.endswith("; left out")
    _, findings = read(tmp_path, spec(more="logs.bad_rows = 0.0"))
    assert not findings[0].passed
    assert "; left out; logs.bad_rows allows 0.0%, these are " in findings[0].text


def test_a_file_without_rows_among_good_ones_is_left_out(tmp_path):
    """With or without a header, they are nothing; and so is what programs leave beside files of a table."""
    good(tmp_path, "a.parquet", rows=10)
    (tmp_path / "b.csv").write_text(HEAD)
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "_SUCCESS").write_text("")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.0"))
    assert len(got.rows) == 10
    assert (findings[0].text, findings[0].level) == ("files without a row", "note")
    assert findings[0].examples == ("b.csv", "c.csv")


def test_zero_rows_are_refused(tmp_path):
    """With the file that has none."""
    (tmp_path / "b.csv").write_text(HEAD)
    with pytest.raises(DataError, match=r"source.files: .*b.csv: expected at least one row, got an empty file"):
        read(tmp_path, spec())


def test_a_csv_that_ends_in_the_middle_of_a_row_loses_that_row(tmp_path):
    """What was read before stays."""
    (tmp_path / "a.csv").write_text(HEAD + f"1,10,{SECOND},0\n2,11,{SECOND // 10}")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert got.rows["user"].to_list() == [1]
    assert verdicts(findings) == [(True, "a.csv: truncated: its last row has 3 of 4 values; left out")]


def test_a_csv_without_a_last_line_break_is_whole(tmp_path):
    """Many programs write none."""
    (tmp_path / "a.csv").write_text(HEAD + f"1,10,{SECOND},0\n2,11,{SECOND},0")
    assert read(tmp_path, spec())[0].rows["user"].to_list() == [1, 2]


def test_a_packed_csv_that_breaks_off_is_left_out(tmp_path):
    """A part of it is not to be had."""
    good(tmp_path, "a.parquet", rows=10)
    rows = pl.select(user=pl.int_range(300_000).hash(), item=1, time=SECOND, a=0)
    rows.write_csv(tmp_path / "b.csv.gz", compression="gzip")
    path = tmp_path / "b.csv.gz"
    path.write_bytes(path.read_bytes()[:-1000])
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 1.0"))
    assert len(got.rows) == 10
    assert verdicts(findings)[0] == (
        True,
        "b.csv.gz: truncated, or not a .csv.gz file: unexpected end of file; left out",
    )


def test_a_file_that_breaks_inside_keeps_what_was_read(tmp_path, monkeypatch):
    """The rest of the piece is told about."""
    monkeypatch.setattr(files, "ROWS", 1000)
    path = good(tmp_path, "a.parquet", rows=2000, user=range(2000))
    pl.read_parquet(path).with_columns(pl.col("user").hash() % 2**40).write_parquet(path, row_group_size=1000)
    raw = bytearray(path.read_bytes())
    raw[4:200] = bytes([255]) * 196
    path.write_bytes(raw)
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert len(got.rows) == 1000
    assert findings[0].count == 1000
    assert findings[0].text.startswith("a.parquet from row 0: cannot be read beyond row 0: ")


def test_a_row_with_too_many_values_is_bad(tmp_path):
    """A comma in a text that has no quotes; the others of the file are kept."""
    (tmp_path / "a.csv").write_text(HEAD + f"1,10,{SECOND},0\n2,11,{SECOND},0,9\n3,12,{SECOND},0\n")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert got.rows["user"].to_list() == [1, 3]
    assert verdicts(findings) == [(True, "a row with more values than there are columns; left out")]
    assert findings[0].examples == (f"user=2 item=11 time={SECOND} (a.csv)",)


def test_four_units_and_two_zones_are_the_same_moment(tmp_path):
    """Each file in its own way."""
    for name, unit in {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}.items():
        good(tmp_path, f"{name}.parquet", rows=1, time=SECOND * unit)
    (tmp_path / "utc.csv").write_text(HEAD + "1,10,2026-03-02T12:00:00Z,0\n1,10,2026-03-02 12:00:00,0\n")
    (tmp_path / "zoned.csv").write_text(HEAD + "1,10,2026-03-02T20:00:00+08:00,0\n")
    good(tmp_path, "zone.parquet", rows=1, time=NOON.astimezone().replace(tzinfo=None))
    zoned = pl.DataFrame({"user": [1], "item": [1], "a": [0], "time": [NOON]})
    zoned.with_columns(pl.col("time").dt.convert_time_zone("Asia/Tokyo")).write_parquet(tmp_path / "tokyo.parquet")
    got, findings = read(tmp_path, spec())
    assert got.rows[TIME].to_list() == [NOON] * 9
    assert verdicts(findings) == [(True, "rows that cannot be used")]


def test_a_unit_that_is_said_is_meant(tmp_path):
    """Milliseconds read as seconds end in the year 54000."""
    good(tmp_path, "a.parquet", rows=3, time=SECOND * 1000)
    _, findings = read(tmp_path, spec(unit="s"))
    text = "time: beyond the year 2200 when counted in 's' (keys.time_unit); did you mean 'ms'?; left out; "
    assert verdicts(findings) == [(False, text + "100.00% of the rows cannot be used, logs.bad_rows allows 1.00%")]
    assert findings[0].examples[0] == f"got {SECOND * 1000}: user=0 item=10 time={SECOND * 1000} (a.parquet)"


def test_rows_without_a_key_are_bad(tmp_path):
    """An item, a timestamp; a user may be nobody known."""
    rows = [(None, 10, SECOND, 0), (1, None, SECOND, 0), (2, 11, None, 0), (3, 12, SECOND, 0)]
    pl.DataFrame(rows, schema=COLUMNS, orient="row").write_parquet(tmp_path / "a.parquet")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert got.rows["user"].to_list() == [None, 3]
    assert verdicts(findings) == [(True, "item: missing; left out"), (True, "time: missing; left out")]
    assert findings[1].examples == ("user=2 item=11 time=None (a.parquet)",)


def test_a_clock_that_is_ahead_is_bad(tmp_path):
    """A row later than the timestamp until which logs can be."""
    rows = [(1, 10, NOON, 0), (2, 10, NOON + timedelta(microseconds=1), 0)]
    pl.DataFrame(rows, schema=COLUMNS, orient="row").write_parquet(tmp_path / "a.parquet")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"), latest=MICRO)
    assert got.rows["user"].to_list() == [1]
    assert verdicts(findings) == [(True, "time: in the future: a clock is wrong; left out")]
    assert findings[0].examples == ("user=2 item=10 time=2026-03-02 12:00:00.000001+00:00 (a.parquet)",)


def test_an_id_beyond_64_bits_is_bad(tmp_path):
    """It says what it would need."""
    (tmp_path / "a.csv").write_text(HEAD + f"1,10,{SECOND},0\n18446744073709551616,11,{SECOND},0\n")
    got, findings = read(tmp_path, spec(more="logs.bad_rows = 0.5"))
    assert got.rows["user"].to_list() == [1]
    assert verdicts(findings) == [(True, "user: expected an id (int); left out")]


def test_a_log_of_all_sorts_is_built_from_its_good_rows(tmp_path):
    """Up to what the spec allows; beyond it, whoever called leaves with exit code 3 and is told everything."""
    logs, described = tmp_path / "logs", spec(more=MORE.format(share=0.5))
    logs.mkdir()
    good(logs, "a.parquet", time=SECOND * 1000)
    pl.DataFrame({"user": ["7", "bob"], "item": [10, 10], "time": [SECOND] * 2, "a": [1, 0]}).write_csv(logs / "b.csv")
    path = good(logs, "c.parquet", rows=3)
    path.write_bytes(path.read_bytes()[:-9])
    manifest = build.build(described, sources.read(described, logs), tmp_path / "data", progress=Silent())
    assert manifest["counts"]["train"]["candidates"] == 1001
    strict = spec(more=MORE.format(share=0.0))
    with pytest.raises(DataError) as error:
        build.build(strict, sources.read(strict, logs), tmp_path / "other", progress=Silent())
    assert error.value.exit_code == 3
    assert "c.parquet: truncated, or not a .parquet file: " in str(error.value)
    assert "user: expected an id (int); left out; 0.10% of the rows cannot be used, logs.bad_rows allows 0.00%" in str(
        error.value
    )
    assert "such as got 'bob': user=bob item=10" in str(error.value)


def test_a_user_with_a_tenth_of_all_events_is_told_about(tmp_path):
    """A warning with the user and the count, however many partitions there are; the tables hold all of it."""
    logs, described = tmp_path / "logs", spec(more=MORE.format(share=0.01))
    logs.mkdir()
    rows = pl.select(user=pl.int_range(20_000) % 9_000 + 10).with_columns(item=10, time=SECOND, a=0)
    rows = rows.with_columns(user=pl.when(pl.int_range(20_000) % 10 == 0).then(7).otherwise("user"))
    rows.with_columns(time=SECOND + pl.int_range(20_000)).write_parquet(logs / "a.parquet")
    how = build.BuildOptions(rows=1500)
    manifest = build.build(described, sources.read(described, logs), tmp_path / "data", progress=Silent(), how=how)
    (heavy,) = [finding for finding in manifest["findings"] if finding["name"] == "heavy users"]
    assert (heavy["passed"], heavy["level"]) == (True, "warn")
    assert (heavy["count"], heavy["total"], heavy["examples"]) == (2_000, 20_000, ("user=7: 2,000",))
    assert manifest["counts"]["train"]["candidates"] == 20_000
