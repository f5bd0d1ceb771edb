"""Logs that are tables of databases: the rows of a file, what is said of what cannot be read, and their digest."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from features import sources
from features.logs.copies import copies_of
from features.logs.databases import batches, table_of
from features.logs.files import scan, side
from pipelines.cli import fingerprint
from rec.errors import DataError, SpecError
from rec.spec import Spec
from tests.features.logs.test_forms import rows_of, spec

ROWS = [(7, "a", "2026-03-01", 1), (8, None, "2026-03-02", 0), (9, "12.0", "2026-03-03", 1)]
COLUMNS = "item INTEGER, user TEXT, time TEXT, a INTEGER"
DRIVERS = ["duckdb", "sqlite"]


def execute(driver: str, path: Path, *statements: str) -> None:
    """SQL in a database of either kind."""
    connection = duckdb.connect(path) if driver == "duckdb" else sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def planted(driver: str, folder: Path) -> str:
    """A database with a table of impressions; its address without the table."""
    quoted = [(item, "NULL" if user is None else f"'{user}'", day, a) for item, user, day, a in ROWS]
    values = ", ".join(f"({item}, {user}, '{day}', {a})" for item, user, day, a in quoted)
    create = f"CREATE TABLE shown ({COLUMNS})".replace("user", '"user"')
    execute(driver, folder / "shop.db", create, f"INSERT INTO shown VALUES {values}")
    return f"{driver}:shop.db"


def described(address: str, **more: str) -> Spec:
    """A log of one table, whose users are text."""
    return spec(address.replace('"', '\\"'), user="string", **more)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "rest", ["table=shown", "table=main.shown", "query=SELECT * FROM shown WHERE item > 0 ORDER BY item; "]
)
def test_a_table_is_read_as_the_same_parquet_file_is(tmp_path, driver, rest):
    """Values go through the one conversion: a user of whole-number text is that number."""
    address = f"{planted(driver, tmp_path)}?{rest}"
    pl.DataFrame(ROWS, schema=["item", "user", "time", "a"], orient="row").write_parquet(tmp_path / "log.parquet")
    expected = rows_of(described("log.parquet"), tmp_path, "item", "user", "a")
    assert rows_of(described(address), tmp_path, "item", "user", "a").equals(expected)
    assert expected["user"].to_list() == ["a", None, "12"]
    (piece,), findings = scan(address, tmp_path, "source.files")
    assert (piece.name, piece.rows, findings) == (address, 3, ())


@pytest.mark.parametrize("driver", DRIVERS)
def test_tables_are_events_and_side_tables_too(tmp_path, driver):
    """Every place that names files; a condition filters a table as a file, and files may stand beside it."""
    address = f"{planted(driver, tmp_path)}?table=shown"
    items = side([address], None, tmp_path, "source.items")
    assert items is not None
    assert items.frame.collect()["item"].to_list() == [7, 8, 9]
    (tmp_path / "more.csv").write_text("item,user,time,a\n10,b,2026-03-04,1\n")
    both = described(address).model_copy(
        update={
            "source": {
                "kind": "events",
                "impressions": [address, "more.csv"],
                "where": "item > 7",
                "events": {"bought": {"files": address, "where": "a = 1"}},
            }
        }
    )
    logs = sources.read(both, tmp_path)
    assert [piece.frame.collect()["item"].to_list() for piece in logs.impressions] == [[8, 9], ["10"]]
    assert logs.happened["bought"].pieces[0].frame.collect()["item"].to_list() == [7, 9]


def test_values_of_sqlite_have_the_type_of_their_whole_column(tmp_path):
    """However late another type comes: text beside numbers is text, a half beside whole numbers a number."""
    execute(
        "sqlite",
        tmp_path / "shop.db",
        'CREATE TABLE t (id INTEGER, "odd "" name", late, mixed, half, none)',
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999) INSERT INTO t SELECT i, i, "
        "CASE WHEN i > 2000 THEN 'x' END, CASE WHEN i > 2000 THEN 'x' ELSE i END, CASE WHEN i > 2000 THEN i + 0.5 "
        "ELSE i END, NULL FROM n",
    )
    rows = pl.read_parquet(copies_of("sqlite:shop.db?table=t", tmp_path, "x"))
    assert rows.schema == {
        "id": pl.Int64, 'odd " name': pl.Int64, "late": pl.String, "mixed": pl.String, "half": pl.Float64,
        "none": pl.String,
    }  # fmt: skip
    assert rows.row(0) == (0, 0, None, "0", 0.0, None)
    assert rows.row(2999) == (2999, 2999, "x", "x", 2999.5, None)


def test_types_of_duckdb_are_those_of_parquet(tmp_path):
    """Lists, objects, decimals, enums, 128 bits and timestamps; an interval is no value of a log."""
    execute(
        "duckdb",
        tmp_path / "shop.db",
        "CREATE TABLE t AS SELECT [1, 2] AS l, {'q': 'w'} AS o, 1.50::DECIMAL(10, 2) AS d, 'x'::ENUM('x', 'y') AS e, "
        "5::HUGEINT AS h, TIMESTAMP '2026-03-01 10:00:00' AS at, 1::UTINYINT AS u FROM range(250000)",
        "CREATE TABLE odd AS SELECT INTERVAL 1 MONTH AS i",
    )
    (piece,), _ = scan("duckdb:shop.db?table=t", tmp_path, "source.files")
    assert {name: str(kind) for name, kind in piece.kinds.items() if name in ("l", "o.q", "u")} == {
        "l": "List(Int32)", "o.q": "String", "u": "UInt8",
    }  # fmt: skip
    row = piece.frame.select("l", "o.q", "d", "e", "h").tail(1).collect().row(0)
    assert [str(value) for value in row] == ["[1, 2]", "w", "1.50", "x", "5"]
    with pytest.raises(DataError, match=r"table=odd: a column has a type that no log has; CAST it in a query"):
        scan("duckdb:shop.db?table=odd", tmp_path, "source.files")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("rest", "error", "text"),
    [
        ("shop.db?table=shwon", DataError, "source.files: no table 'shwon' in shop.db; did you mean 'shown'?"),
        ("shop.db?table=zzzzz", DataError, "source.files: no table 'zzzzz' in shop.db; it has shown"),
        ("shpo.db?table=shown", DataError, "shpo.db; did you mean 'shop.db'?"),
        ("text.db?table=shown", DataError, "cannot be opened: "),
        ("shop.db?query=SELECT nope FROM shown", SpecError, "'SELECT nope FROM shown' cannot be evaluated: "),
        ("shop.db?query=DROP TABLE shown", SpecError, "'DROP TABLE shown' cannot be evaluated: "),
        ("shop.db?query=SELECT a, item AS a FROM shown", SpecError, "two columns are called 'a'; name them with AS"),
        (
            "shop.db?query=SELECT * FROM shown WHERE item > 99",
            DataError,
            "expected at least one row, got an empty file",
        ),
        ("shop.db", SpecError, "expected a table or a query, such as "),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, driver, rest, error, text):
    """The place, what came, and the nearest name; the database is as it was."""
    planted(driver, tmp_path)
    (tmp_path / "text.db").write_text("no database\n" * 400)
    before = (tmp_path / "shop.db").read_bytes()
    with pytest.raises(error, match=re.escape(text)):
        sources.read(described(f"{driver}:{rest}"), tmp_path)
    assert (tmp_path / "shop.db").read_bytes() == before


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("postgresql://host/shop?table=t", "postgresql needs a library: `pip install 'adbc-driver-postgresql'`"),
        ("postgresql://me:word@host/shop?table=t", "a spec holds no passwords; expected them in the environment"),
        ("snowflake://host/shop?password=word&table=t", "a spec holds no passwords"),
        ("duckbd:shop.db?table=t", "no driver 'duckbd' of a database; did you mean 'duckdb'?"),
    ],
)
def test_a_driver_that_is_not_there_and_a_password_are_refused(tmp_path, address, text):
    """The connection string keeps its own settings, and the last one is ours."""
    with pytest.raises(SpecError, match=re.escape(text)):
        sources.read(described(address), tmp_path)
    plain = table_of("postgresql://host/shop?sslmode=require&query=SELECT a FROM t WHERE b = '?table=x'", "x")
    assert (plain.place, plain.query) == ("//host/shop?sslmode=require", "SELECT a FROM t WHERE b = '?table=x'")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_missing_library_is_named(tmp_path, driver, monkeypatch):
    """The extra that has it."""
    address = f"{planted(driver, tmp_path)}?table=shown"
    monkeypatch.setitem(sys.modules, "duckdb" if driver == "duckdb" else "adbc_driver_sqlite.dbapi", None)
    with pytest.raises(SpecError, match=rf"{driver} needs a library: `pip install 'multigate\[sql\]'` installs it"):
        sources.read(described(address), tmp_path)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_digest_is_of_the_rows(tmp_path, driver):
    """Another table of the file changes nothing, a value of this one does; the file is an input of the build."""
    address = f"{planted(driver, tmp_path)}?table=shown"
    log = described(address)
    before = fingerprint.of_logs(log, tmp_path)
    execute(driver, tmp_path / "shop.db", "CREATE TABLE other (b INTEGER)")
    assert fingerprint.of_logs(log, tmp_path) == before
    execute(driver, tmp_path / "shop.db", "UPDATE shown SET a = 0 WHERE item = 7")
    assert fingerprint.of_logs(log, tmp_path) != before
    assert rows_of(log, tmp_path, "a")["a"].to_list() == [0, 0, 1]
    assert fingerprint.inputs(log, tmp_path) == [tmp_path / "shop.db"]


def test_a_large_table_comes_in_batches(tmp_path):
    """No batch is the table, and the copy has row groups, between which pieces are cut."""
    execute("duckdb", tmp_path / "shop.db", "CREATE TABLE t AS SELECT range AS item FROM range(2500000)")
    with batches(table_of("duckdb:shop.db?table=t", "x"), tmp_path, "x") as reader:
        assert max(batch.num_rows for batch in reader) < 200_000
    pieces, _ = scan("duckdb:shop.db?table=t", tmp_path, "source.files")
    assert [piece.rows for piece in pieces] == [1_000_000, 1_000_000, 500_000]
    assert [piece.spans["item"] for piece in pieces] == [(0, 999_999), (1_000_000, 1_999_999), (2_000_000, 2_499_999)]
