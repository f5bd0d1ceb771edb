"""Logs in databases, stores and Delta Lake on the command line: a spec is drafted, checked and built as from files."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from features.logs import copies
from pipelines.cli import main
from pipelines.init.draft import write
from rec import spec as specs
from rec.errors import DataError, SpecError
from tests.features.logs.s3 import serving

ROWS = 300
SHOWN, USERS = "shown-{}.parquet", "users.parquet"
QUERY = "shop.duckdb?query=SELECT * FROM users ORDER BY uid"
# what is given to `init` in the folder above the logs, and what a spec in a folder beside them says
LOGS = {
    "store": (
        ["s3://shop/in/shown-*.parquet", f"duckdb:logs/{QUERY}"],
        ["s3://shop/in/shown-*.parquet", f"duckdb:../logs/{QUERY}"],
    ),
    "delta": (
        ["delta:logs/lake?version=0", "s3://shop/in/users.parquet"],
        ["delta:../logs/lake?version=0", "s3://shop/in/users.parquet"],
    ),
}
NAMES = {
    "logs/shown-*.parquet": "../logs/shown-*.parquet",
    "{here}/logs/shown-0.parquet": "../logs/shown-0.parquet",
    "file://{here}/logs/shown-0.parquet": "../logs/shown-0.parquet",
    "duckdb:logs/shop.duckdb?table=shown": "duckdb:../logs/shop.duckdb?table=shown",
    "duckdb:{here}/logs/shop.duckdb?table=shown": "duckdb:../logs/shop.duckdb?table=shown",
    "delta:file://{here}/logs/lake": "delta:../logs/lake",
    "delta:s3://shop/lake?version=0&region=eu-west-1": "delta:s3://shop/lake?version=0&region=eu-west-1",
    "s3a://shop/in/shown-[01].parquet?region=eu-west-1": "s3a://shop/in/shown-[01].parquet?region=eu-west-1",
}


@pytest.fixture(autouse=True)
def _anew():
    copies.forget()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A log in two files and a table of users, the same in a database and in a Delta table."""
    folder = tmp_path_factory.mktemp("shop") / "logs"
    folder.mkdir()
    rng, start = np.random.default_rng(3), datetime(2026, 3, 2, tzinfo=UTC)
    rows = pl.DataFrame(
        {
            "uid": rng.integers(1, 20, ROWS),
            "sku": rng.integers(1, 30, ROWS),
            "ts": [start + timedelta(minutes=30 * row) for row in range(ROWS)],
            "device": rng.choice(["phone", "tablet"], ROWS),
            "is_click": rng.integers(0, 2, ROWS),
        }
    )
    users = pl.DataFrame({"uid": range(1, 20), "age": rng.integers(18, 80, 19)})
    for number in (0, 1):
        rows.slice(number * ROWS // 2, ROWS // 2).write_parquet(folder / SHOWN.format(number))
    users.write_parquet(folder / USERS)
    with duckdb.connect(folder / "shop.duckdb") as connection:
        for name, pattern in (("shown", SHOWN.format("*")), ("users", USERS)):
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{folder / pattern}')")
    write_deltalake(folder / "lake", rows.to_arrow())
    return folder


@pytest.fixture
def shop(original, tmp_path, monkeypatch):
    """The folder to be in, and a server that has the logs too."""
    shutil.copytree(original, tmp_path / "logs")
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path)
    with serving(monkeypatch) as server:
        for file in tmp_path.glob("logs/*.parquet"):
            server.put("shop", f"in/{file.name}", file.read_bytes())
        server.upload(tmp_path / "logs/lake", "shop", "lake/")
        yield server


def left(*arguments: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as error:
        main.main([*arguments])
    return error.value.code


def tables(folder: Path) -> dict[str, bytes]:
    """Session tables, by file."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*.arrow"))}


@pytest.fixture(scope="module")
def expected(original):
    """The session tables of local files."""
    home = original.parent
    assert left("init", f"{original}/{SHOWN.format('*')}", f"{original}/{USERS}", "--out", f"{home}/mine.toml") == 0
    assert left("features", f"{home}/mine.toml", "--out", f"{home}/data", "--engine", "serial") == 0
    return tables(home / "data")


@pytest.mark.parametrize("place", LOGS)
def test_a_spec_is_drafted_and_built_as_from_files(shop, expected, place, capsys):
    """The spec names the address, seen from its folder; the session tables are the same bytes."""
    given, named = LOGS[place]
    assert left("init", *given, "--out", "specs/mine.toml") == 0
    source = specs.load(Path("specs/mine.toml")).source
    assert [source["files"], source["users"]] == named
    assert "copying " in capsys.readouterr().err
    assert left("features", "specs/mine.toml", "--out", "data", "--engine", "serial") == 0
    assert expected
    assert tables(Path("data")) == expected


def test_a_spec_of_addresses_is_checked(shop, capsys):
    """And what is copied for it is said."""
    assert left("init", *LOGS["store"][0], "--out", "specs/mine.toml") == 0
    copies.forget()
    capsys.readouterr()
    assert left("check", "specs/mine.toml") == 0
    printed = capsys.readouterr()
    assert "\n0 failed, " in printed.out
    assert "copying 2 files of s3://shop/in/shown-*.parquet\n" in printed.err
    assert f"copying duckdb:../logs/{QUERY}\n" in printed.err


@pytest.mark.parametrize("log", NAMES)
def test_a_spec_names_logs_as_they_are_seen_from_it(shop, log):
    """Paths, also those inside of addresses, are relative to its folder; options stay."""
    write([log.format(here=Path.cwd())], Path("specs/mine.toml"), roles={}, force=False)
    assert specs.load(Path("specs/mine.toml")).source["files"] == NAMES[log]


def test_a_glob_of_several_tables_is_drafted_file_by_file(shop):
    """With the options of the glob, and the tables told apart by their columns."""
    write(["s3://shop/in/*.parquet?region=eu-west-1"], Path("specs/mine.toml"), roles={}, force=False)
    source = specs.load(Path("specs/mine.toml")).source
    assert source["files"] == [f"s3://shop/in/shown-{number}.parquet?region=eu-west-1" for number in (0, 1)]
    assert source["users"] == "s3://shop/in/users.parquet?region=eu-west-1"


def test_kinds_of_events_are_called_as_their_tables_are(shop):
    """A table's name, that of a Delta table's folder, or that of a glob's."""
    rows = pl.read_parquet("logs/shown-*.parquet").drop("is_click")
    rows.write_parquet("logs/views.parquet")
    with duckdb.connect("logs/shop.duckdb") as connection:
        connection.execute("CREATE SCHEMA web")
        connection.execute("CREATE TABLE web.bought AS SELECT *, 1.5 AS paid FROM 'logs/views.parquet' LIMIT 9")
    write_deltalake("logs/liked", rows.with_columns(stars=1.0).head(20).to_arrow())
    shop.put("shop", "opened/dt=1/a.csv", rows.with_columns(seconds=1.0).head(30).write_csv().encode())
    logs = [
        "logs/views.parquet",
        "duckdb:logs/shop.duckdb?table=web.bought",
        "delta:logs/liked",
        "s3://shop/opened/*/*.csv",
    ]
    write(logs, Path("mine.toml"), roles={}, force=False)
    assert list(specs.load(Path("mine.toml")).source["events"]) == ["bought", "liked", "opened"]


@pytest.mark.parametrize(
    ("log", "out", "error", "text"),
    [
        ("s3://who:hunter2@shop/a.csv", "x.toml", SpecError, "holds a password, key or token"),
        ("s3://shop/in/shawn-0.parquet", "x.toml", DataError, "did you mean 'shown-0.parquet'?"),
        ("s3://shop/in", "x.toml", DataError, "is a folder; give its files, such as s3://shop/in/**/*.parquet"),
        (
            "duckdb:logs/shop.duckdb",
            "x.toml",
            SpecError,
            "expected a table or a query, such as duckdb:logs/shop.duckdb?",
        ),
        ("duckdb:logs/shop.duckdb?table=show", "x.toml", DataError, "did you mean 'shown'?"),
        ("delta:logs/lale", "x.toml", DataError, "did you mean 'lake'?"),
        ("logs/lake", "x.toml", DataError, "logs/lake: is a Delta table; give delta:logs/lake"),
        (
            "duckdb:logs/shop.duckdb?table=shown",
            "logs/shop.duckdb",
            SpecError,
            "is one of the logs; give another --out",
        ),
        ("delta:logs/lake", "logs/lake/x.toml", SpecError, "is one of the logs; give another --out"),
        ("logs/shown-*.parquet", "logs/shown-1.parquet", SpecError, "is one of the logs; give another --out"),
        ("logs/none-*.parquet", "x.toml", DataError, "no file "),
    ],
)
def test_an_address_that_is_no_log_is_refused(shop, log, out, error, text):
    """In words, with the nearest name; nothing is written, and a secret is not repeated."""
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    with pytest.raises(error, match=re.escape(text)) as refused:
        write([log], Path(out), roles={}, force=True)
    assert "hunter2" not in str(refused.value)
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before
