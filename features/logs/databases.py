"""Tables of databases as streams of Arrow batches: a DuckDB file, SQLite, or what an ADBC driver connects to.

    duckdb:shop.duckdb?table=clicks              a file, relative to the spec
    sqlite:shop.db?query=SELECT * FROM clicks    of any table: SQL, as the database writes it
    postgresql://host/shop?table=web.clicks      through the package adbc-driver-postgresql, likewise others

What stands before the `?` of the last form is given to the driver as it is. Passwords come from the driver's own
environment variables or files and are refused in an address. Files are opened for reading only.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from features.logs.logs import first_line
from rec.errors import DataError, SpecError, nearest

FILES = ("duckdb", "sqlite")  # a database of these is a file
DRIVERS = (*FILES, "postgresql", "snowflake", "flightsql", "bigquery")  # of ADBC, beside DuckDB
BATCH = 50_000  # rows of a batch, about
_ADDRESS = re.compile(r"(?P<driver>[a-z][a-z0-9_]+):(?P<place>.*?)[?&](?P<kind>table|query)=(?P<text>.+)", re.DOTALL)
_SECRET = re.compile(r"//[^/@?]*:[^/@?]+@|(password|passwd|pwd|secret|token|key)\s*=", re.IGNORECASE)
_TABLES = "SELECT table_schema, table_name FROM information_schema.tables"
_TABLES_OF_SQLITE = "SELECT 'main', name FROM sqlite_master WHERE type IN ('table', 'view')"


@dataclass(frozen=True)
class Table:
    """A table of a database, or the rows of a query."""

    driver: str
    place: str
    name: str | None
    query: str | None

    def file(self, base: Path) -> Path | None:
        """The file that the database is; None of a server."""
        return (base / self.place).absolute() if self.driver in FILES else None


def is_address(text: str) -> bool:
    """Whether a text means a table of a database, and not a path."""
    return _ADDRESS.fullmatch(text) is not None or text.partition(":")[0] in DRIVERS


def table_of(text: str, where: str) -> Table:
    """The table that an address means; SpecError for one without a table, and for one with a password."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise SpecError(
            f"{where}: {text!r}: expected a table or a query, such as {text.partition('?')[0]}?table=clicks"
        )
    if _SECRET.search(match["place"]):
        raise SpecError(
            f"{where}: a spec holds no passwords; expected them in the environment, as the driver of "
            f"{match['driver']} reads them"
        )
    name, query = (match["text"], None) if match["kind"] == "table" else (None, match["text"])
    return Table(match["driver"], match["place"], name, query)


@contextmanager
def batches(table: Table, base: Path, where: str) -> Iterator[pa.RecordBatchReader]:
    """A stream of the rows of a table, of bounded memory.

    Raises SpecError for a missing driver and for SQL that the database refuses, DataError for a missing file or table
    and for a database that cannot be opened or read.
    """
    file = table.file(base)
    if file is not None and not file.is_file():
        near = nearest(file.name, [entry.name for entry in file.parent.glob("*")]) if file.parent.is_dir() else ""
        raise DataError(f"{where}: no file {file}{near}")
    if table.driver == "duckdb":
        yield from _of_duckdb(table, str(file), where)
    else:
        uri = f"file:{quote(str(file))}?mode=ro" if file is not None else f"{table.driver}:{table.place}"
        yield from _of_adbc(table, uri, where)


def _of_duckdb(table: Table, file: str, where: str) -> Iterator[pa.RecordBatchReader]:
    duckdb = _library("duckdb", table.driver, where)
    try:
        connection = duckdb.connect(file, read_only=True)
    except duckdb.Error as error:
        raise DataError(f"{where}: {file}: cannot be opened: {first_line(error)}") from None
    with closing(connection):
        query = table.query or _whole(table, where, connection.execute(_TABLES).fetchall())
        try:
            reader = connection.sql(query).to_arrow_reader(BATCH)
        except (duckdb.Error, AttributeError) as error:
            raise _refused(table, where, error) from None
        try:
            yield reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise DataError(f"{where}: {file}: cannot be read: {first_line(error)}") from None


def _of_adbc(table: Table, uri: str, where: str) -> Iterator[pa.RecordBatchReader]:
    driver = _library(f"adbc_driver_{table.driver}.dbapi", table.driver, where)
    try:
        connection = driver.connect(uri)
    except driver.Error as error:
        raise DataError(f"{where}: {table.place}: cannot be opened: {first_line(error)}") from None
    with closing(connection), closing(connection.cursor()) as cursor:
        query = table.query or _whole(table, where, _tables(cursor, table, where, driver))
        try:
            cursor.execute(_typed(cursor, query, where) if table.driver == "sqlite" else query)
            reader = cursor.fetch_record_batch()
        except driver.Error as error:
            raise _refused(table, where, error) from None
        try:
            yield _without_first(reader) if table.driver == "sqlite" else reader
        except (driver.Error, pa.ArrowException, OSError) as error:
            raise DataError(f"{where}: {table.place}: cannot be read: {first_line(error)}") from None


def _library(module: str, driver: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        pass
    if driver not in DRIVERS:
        raise SpecError(f"{where}: no driver {driver!r} of a database{nearest(driver, DRIVERS)}")
    way = "multigate[sql]" if driver in FILES else f"adbc-driver-{driver}"
    raise SpecError(f"{where}: {driver} needs a library: `pip install '{way}'` installs it")


def _tables(cursor: Any, table: Table, where: str, driver: ModuleType) -> Sequence[tuple[str, str]]:
    try:
        cursor.execute(_TABLES_OF_SQLITE if table.driver == "sqlite" else _TABLES)
        return cursor.fetchall()
    except driver.Error as error:
        raise DataError(f"{where}: {table.place}: cannot be opened: {first_line(error)}") from None


def _whole(table: Table, where: str, tables: Sequence[tuple[str, str]]) -> str:
    """The query for a whole table; DataError where the database has none of that name."""
    called = {name: (name,) for _, name in tables} | {f"{schema}.{name}": (schema, name) for schema, name in tables}
    if table.name not in called:
        hint = nearest(table.name or "", called) or f"; it has {', '.join(sorted({name for _, name in tables})[:10])}"
        raise DataError(f"{where}: no table {table.name!r} in {table.place}{hint if tables else '; it has none'}")
    parts = ('"' + part.replace('"', '""') + '"' for part in called[table.name])
    return f"SELECT * FROM {'.'.join(parts)}"  # noqa: S608  quoted, and a name that the database has


def _typed(cursor: Any, query: str, where: str) -> str:
    """A query of SQLite, where every value has a type of its own, as one of typed columns, after a row of such values.

    A column of integers alone is one of integers; of numbers one of numbers; any other one of text.
    """
    inner = query.strip().rstrip(";")
    cursor.execute(inner)
    columns = [column[0] for column in cursor.description]
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{where}: two columns are called {twice!r}; name them with AS")
    names = ['"' + column.replace('"', '""') + '"' for column in columns]
    kinds = ", ".join(
        f"max(typeof({name}) NOT IN ('integer', 'real', 'null')), max(typeof({name}) = 'real'), count({name})"
        for name in names
    )
    cursor.execute(f"SELECT {kinds} FROM ({inner})")  # noqa: S608  a person's own query, opened for reading only
    found = cursor.fetchone()
    first, typed = list[str](), list[str]()
    for name, text, real, count in zip(names, found[::3], found[1::3], found[2::3], strict=True):
        kind, value = ("TEXT", "'x'") if text or not count else ("REAL", "0.5") if real else ("INTEGER", "1")
        first.append(f"{value} AS {name}")
        typed.append(f"CAST({name} AS {kind}) AS {name}")
    return f"SELECT {', '.join(first)} UNION ALL SELECT {', '.join(typed)} FROM ({inner})"  # noqa: S608


def _without_first(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    def rest() -> Iterator[pa.RecordBatch]:
        yield reader.read_next_batch().slice(1)
        yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, rest())


def _refused(table: Table, where: str, error: Exception) -> SpecError:
    return SpecError(f"{where}: {table.place}: {table.query or table.name!r} cannot be evaluated: {first_line(error)}")
