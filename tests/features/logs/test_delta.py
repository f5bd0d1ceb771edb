"""Delta tables that are refused: their log, written by hand, says what no reader knows, or names files gone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from features.logs import copies
from features.logs.files import scan
from rec.errors import DataError


@pytest.fixture
def table(tmp_path):
    """A table of one version and one file."""
    write_deltalake(tmp_path / "t", pa.table({"a": [1, 2]}))
    return tmp_path / "t"


def next_version(table: Path, *lines: dict[str, object]) -> None:
    """A version with lines of the log that no writer here writes."""
    version = len(list((table / "_delta_log").glob("*.json")))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (table / "_delta_log" / f"{version:020}.json").write_text(text)


def written(table: Path, kind: str) -> dict[str, Any]:
    """A line of the first version."""
    lines = (table / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    return next(line[kind] for line in map(json.loads, lines) if kind in line)


def protocol(*features: str) -> dict[str, object]:
    """A line that asks readers for features."""
    says = {"readerFeatures": [*features], "writerFeatures": [*features]}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **says}}


def refused(table: Path, text: str, address: str = "delta:t") -> None:
    """Reading is refused in words, and no copy of a part is left."""
    before = {*copies._folder().iterdir()}
    with pytest.raises(DataError, match=re.escape(text)):
        scan(address, table.parent, "x")
    assert {*copies._folder().iterdir()} == before


def test_a_table_with_column_mapping_is_refused(table):
    """Its files call columns by other names than the table does."""
    metadata = written(table, "metaData")
    schema = json.loads(metadata["schemaString"])
    schema["fields"][0]["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
    settings = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"}
    mapped = {**metadata, "schemaString": json.dumps(schema), "configuration": settings}
    next_version(table, protocol("columnMapping"), {"metaData": mapped})
    refused(table, "the table needs a reader of columnMapping, which this is not; write the table, or a query of")


def test_a_table_that_needs_a_reader_of_the_future_is_refused(table):
    """What it needs is named."""
    next_version(table, protocol("deletionVectors", "hologram"))
    refused(table, "hologram")


def test_a_shallow_clone_is_refused(table):
    """Its files are those of another table, which may remove them."""
    file = written(table, "add")
    next_version(table, {"add": {**file, "path": f"file://{table.parent}/other/part.parquet"}})
    refused(table, "a shallow clone, whose files are those of another table")


def test_a_version_whose_files_a_vacuum_removed_is_refused(table):
    """The last one is read."""
    write_deltalake(table, pa.table({"a": [3]}), mode="overwrite")
    DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    refused(table, "version 0 has a file part-", "delta:t?version=0")
    refused(table, "which is gone: a vacuum removes the files of old versions", "delta:t?version=0")
    (piece,), _ = scan("delta:t", table.parent, "x")
    assert piece.frame.collect()["a"].to_list() == [3]
