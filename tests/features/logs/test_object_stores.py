"""Logs in object stores, other filesystems and Delta Lake: the bytes of local files, or why they cannot be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import multigate
from features.logs import copies, object_stores
from features.logs.files import scan
from pipelines.cli import fingerprint
from rec.errors import DataError, SpecError
from tests.features.logs import deletion_vector
from tests.features.logs.s3 import serving

SPEC = """
name = "x"
[source]
kind = "events"
impressions = "{shown}"
users = "{users}"
events = {{ bought = {{ files = "{bought}", within = "1d" }} }}
[keys]
user = "user"
item = "item"
time = "time"
[split]
validation = 2026-03-02T00:00:00Z
test = 2026-03-03T00:00:00Z
[context]
user = {{ kind = "id" }}
age = {{ kind = "number" }}
[candidates]
item = {{ kind = "id" }}
dt = {{ kind = "id", values = "string" }}
rate = {{ kind = "number", make = "rate", per = "item", task = "buy" }}
[tasks.buy]
label = "bought"
window = "1d"
"""
FILES = {"shown": "log/**/*.parquet", "users": "users.csv.gz", "bought": "bought*.jsonl"}
FOREIGN = {"s3": "s3://logs/in/", "memory": "memory://in/", "file": "file://{folder}/"}


@pytest.fixture(autouse=True)
def _anew():
    copies.forget()


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as running:
        yield running


@pytest.fixture
def log(tmp_path):
    """A folder of logs of three days, in parts, with a column of folders' names."""
    folder = tmp_path / "logs"
    for day in (1, 2, 3):
        part = folder / f"log/dt=2026-03-0{day}"
        part.mkdir(parents=True)
        rows = [
            {"user": user, "item": 10 * user + day, "time": f"2026-03-0{day}T1{user}:00:00"} for user in range(1, 9)
        ]
        pl.DataFrame(rows[:4]).write_parquet(part / "a.parquet")
        pl.DataFrame(rows[4:]).write_parquet(part / "b.parquet")
        (part / "_SUCCESS").write_text("")
        events = [{**row, "time": row["time"].replace(":00:00", ":05:00")} for row in rows[::2]]
        (folder / f"bought-{day}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    pl.DataFrame({"user": range(1, 9), "age": range(20, 28)}).write_csv(folder / "users.csv.gz", compression="gzip")
    return folder


def tables(sources: dict[str, str], base: Path) -> dict[str, bytes]:
    """The session tables of a build, by file."""
    out = base / f"data-{len(list(base.glob('data-*')))}"
    multigate.build_tables(multigate.parse_spec(SPEC.format(**sources)), out, base=base)
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*.arrow"))}


@pytest.mark.parametrize("scheme", FOREIGN)
def test_session_tables_are_those_of_local_files(log, server, scheme):
    """Folders' columns, compressed text, lines of JSON, a glob of many pages of a list; no copy is left out."""
    expected = tables(FILES, log)
    server.upload(log, "logs", "in/")
    memory = fsspec.filesystem("memory")
    for file in log.rglob("*"):
        if file.is_file():
            memory.pipe(f"/in/{file.relative_to(log).as_posix()}", file.read_bytes())
    prefix = FOREIGN[scheme].format(folder=log)
    assert tables({name: prefix + path for name, path in FILES.items()}, log) == expected
    assert expected


def test_session_tables_of_a_delta_table_are_those_of_its_files(log, server):
    """On a disk and in a store; its log says the values of partitions."""
    for day in (1, 2, 3):
        parts = pa.concat_tables(
            [pl.read_parquet(log / f"log/dt=2026-03-0{day}" / part).to_arrow() for part in ("a.parquet", "b.parquet")]
        )
        write_deltalake(
            log / "lake", parts.append_column("dt", pa.array([f"2026-03-0{day}"] * 8)), mode="append",
            partition_by=["dt"],
        )  # fmt: skip
    server.upload(log / "lake", "lake", "shown/")
    expected = tables({**FILES, "shown": "lake/**/*.parquet"}, log)
    for address in ("delta:lake", "delta:s3://lake/shown", f"delta:file://{log}/lake?version=2"):
        assert tables({**FILES, "shown": address}, log) == expected


def test_rows_that_a_delta_table_deleted_are_not_read(tmp_path):
    """Of the version that deleted them; a file without a column has nulls there, and partitions have types."""
    write_deltalake(tmp_path / "t", pa.table({"a": [1, 2, 3, 4], "d": ["x y"] * 4}), partition_by=["d"])
    file = pa.table(DeltaTable(tmp_path / "t").get_add_actions())["path"][0].as_py()
    deletion_vector.delete(tmp_path / "t", file, [0, 2])
    more = pa.table({"a": [5], "d": ["z"], "new": [True]})
    read = {}
    for version, address in (("old", "delta:t?version=0"), ("last", "delta:t")):
        (piece,), _ = scan(address, tmp_path, "x")
        read[version] = piece.frame.collect().rows()
    assert read == {"old": [(n, "x y") for n in (1, 2, 3, 4)], "last": [(2, "x y"), (4, "x y")]}
    write_deltalake(tmp_path / "u", pa.table({"a": [1]}))
    write_deltalake(tmp_path / "u", more, mode="append", schema_mode="merge")
    (piece,), _ = scan("delta:u", tmp_path, "x")
    assert sorted(piece.frame.collect().rows(), key=str) == [(1, None, None), (5, "z", True)]


def test_a_file_of_several_patterns_is_fetched_once(log, server):
    """And so is a file that is asked for again; only what changed is fetched anew."""
    server.upload(log, "logs")
    both = ["s3://logs/log/*/a.parquet", "s3://logs/log/dt=2026-03-01/*"]
    pieces, findings = scan(both, log, "x")
    assert len(pieces) == 4
    assert [finding.text for finding in findings] == ["files that several paths or globs name: each is read once"]
    fetched = len([line for line in server.asked if "GET /logs/log" in line])
    scan(both, log, "x")
    assert len([line for line in server.asked if "GET /logs/log" in line]) == fetched == 4


def test_a_change_in_the_store_is_another_log(log, server):
    """Without fetching a byte; the same files are the same log."""
    server.upload(log, "logs")
    spec = multigate.parse_spec(SPEC.format(**{name: f"s3://logs/{path}" for name, path in FILES.items()}))
    before = fingerprint.of_logs(spec, log)
    copies.forget()
    assert fingerprint.of_logs(spec, log) == before
    assert not any(line.startswith("GET /logs/log") for line in server.asked)
    server.put("logs", "users.csv.gz", b"user,age\n")
    copies.forget()
    assert fingerprint.of_logs(spec, log) != before


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("s3://logs/in/b.csv", DataError, "x: no file s3://logs/in/b.csv; did you mean 'a.csv'?"),
        ("s3://logs/in/*.parquet", DataError, "x: no file s3://logs/in/*.parquet"),
        ("s3://logs/none/*.csv", DataError, "x: no file s3://logs/none/*.csv"),
        ("s3://logs/in", DataError, "s3://logs/in is a folder; give its files, such as s3://logs/in/**/*.parquet"),
        ("s3://lugs/in/*.csv", DataError, "x: s3://lugs/in/*.csv: no such bucket: "),
        ("s3://lugs/a.csv", DataError, "x: s3://lugs/a.csv: no such bucket: "),
        ("s3://logs/odd/*", DataError, "x: s3://logs/odd/x.bin: expected one of .parquet, "),
        (
            "s3://logs/in/*.csv?anonymous=true&endpoint_override={url}",
            DataError,
            "x: s3://logs/in/*.csv: access is refused; credentials are ",
        ),
        ("s3://logs/in/*.csv?regoin=eu", SpecError, "no option 'regoin' of s3://; did you mean 'region'?"),
        ("s3://lo*/a.csv", SpecError, "expected the name of a bucket before the first /, got a glob"),
        ("zz9://logs/a.csv", SpecError, "x: no filesystem zz9://; expected s3, gs, abfs, "),
        ("sftp://host/a.csv", SpecError, "x: sftp:// needs a library: SFTPFileSystem requires "),
        ("file://logs/a.csv", SpecError, "expected a path from the root, such as file:///data/logs/*.parquet"),
        ("delta:nowhere", DataError, "x: delta:nowhere: no folder "),
        ("delta:s3://logs/in", DataError, "x: delta:s3://logs/in: no Delta table there: it has no _delta_log"),
        ("delta:t?version=x", SpecError, "x: delta:t: version: expected a number from 0"),
        ("a**.csv", DataError, "a**.csv: no glob: "),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, server, address, error, text):
    """The place, what came, the nearest name, and what to do."""
    server.put("logs", "in/a.csv", b"a\n1\n")
    server.put("logs", "odd/x.bin", b"x")
    with pytest.raises(error, match=re.escape(text)):
        scan(address.replace("{url}", server.url), tmp_path, "x")


@pytest.mark.parametrize(
    "address",
    [
        "s3://who:hunter2@logs/a.csv",
        "s3://who:hun/ter2@logs/a.csv",
        "s3://logs/a.csv?secret_key=hunter2",
        "abfss://c@acct.dfs.core.windows.net/a.csv?sas=hunter2",
        "sftp://me:hunter2@host/a.csv",
        "https://host/a.csv?X-Amz-Signature=hunter2",
        "delta:s3://who:hunter2@logs/t",
        "delta:s3://logs/t?version=1&access_key=hunter2",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(tmp_path, address):
    """Neither the secret nor what stands beside it."""
    with pytest.raises(SpecError, match="a spec holds no secrets, expected them in the environment") as refused:
        scan(address, tmp_path, "x")
    assert "hunter2" not in str(refused.value)
    assert "ter2" not in str(refused.value)


def _left() -> list[Path]:
    return [file for file in copies._folder().iterdir() if file.name != "lock"]


def test_a_copy_is_whole_or_is_not(tmp_path, server):
    """A file that is shorter than it was when it was listed, and one that is written while it is read."""
    memory, before = fsspec.filesystem("memory"), _left()
    memory.pipe("/short/a.csv", b"a\n" + b"1\n" * 500)
    copies.states_of("memory://short/a.csv", tmp_path, "x")
    memory.pipe("/short/a.csv", b"a\n1\n")
    with pytest.raises(DataError, match=r"memory://short/a.csv: the copy is incomplete: expected 1002 bytes, got 4"):
        scan("memory://short/a.csv", tmp_path, "x")

    def write_again(verb: str, key: str) -> None:
        if verb == "GET" and key == "a.csv":
            server.put("logs", "a.csv", b"a\n" + b"2\n" * 500)

    server.before = write_again
    server.put("logs", "a.csv", b"a\n" + b"3\n" * 500)
    copies.forget()
    with pytest.raises(DataError, match=r"s3://logs/a.csv: changed while it was read; try again"):
        scan("s3://logs/a.csv", tmp_path, "x")
    assert _left() == before


def test_a_full_disk_is_said_before_and_after(tmp_path, server, monkeypatch):
    """What is needed and what is free; /dev/full is a disk that fills up while a copy is written."""
    server.put("logs", "a.csv", b"a\n1\n")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type(usage)(9, 9, 3))
    with pytest.raises(DataError, match=r"s3://logs/a.csv: 1 files of 4 bytes, and .* has 3 free; TMPDIR names anoth"):
        scan("s3://logs/a.csv", tmp_path, "x")
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(DataError, match=r"cannot be copied to .*No space left"),
    ):
        object_stores._write(full, b"x" * 9, "s3://logs/a.csv", "x")


def test_copies_of_a_killed_process_are_removed_by_the_next(tmp_path):
    """Those of one that runs are not."""
    (tmp_path / "a.csv").write_text("a\n1\n")
    fill = (
        "import fsspec, sys, os, time; from pathlib import Path; from features.logs import copies;"
        "fsspec.filesystem('memory').pipe('/a.csv', b'a');"
        "copies.copies_of('memory://a.csv', Path(), 'x'); print(flush=True); {}"
    )
    environment = {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path), "PATH": ""}
    run = {"env": environment, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", fill.format("time.sleep(60)")], **run) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        (folder,) = tmp_path.glob("multigate-copies-*")
        subprocess.run([sys.executable, "-c", fill.format("")], check=True, **run)
        assert [*tmp_path.glob("multigate-copies-*")] == [folder]
        killed.kill()
    subprocess.run([sys.executable, "-c", fill.format("")], check=True, **run)
    assert [*tmp_path.glob("multigate-copies-*")] == []


def test_the_library_of_delta_lake_is_named(tmp_path, monkeypatch):
    """The extra that has it."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(SpecError, match=r"a Delta table needs a library: `pip install 'multigate\[delta\]'` installs"):
        scan("delta:t", tmp_path, "x")
