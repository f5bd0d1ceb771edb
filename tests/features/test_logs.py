"""Files of logs: read alike whatever their form, refused with a reason."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features.logs import collect, listed, require, scan
from rec.errors import DataError

ROWS = pl.DataFrame({"user": [1, 2], "word": ["a", None]})


def write(folder: Path, name: str, rows: pl.DataFrame = ROWS) -> Path:
    """The rows in a file of the form its name says."""
    path = folder / name
    if path.suffix == ".parquet":
        rows.write_parquet(path)
    elif path.suffix in (".arrow", ".feather"):
        rows.write_ipc(path)
    else:
        rows.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv", "a.arrow", "a.feather"])
def test_every_form_gives_the_same_rows(tmp_path, name):
    """Parquet, CSV, TSV and Arrow hold the same table."""
    write(tmp_path, name)
    assert scan(name, tmp_path, "source.files").collect().equals(ROWS)


def test_a_glob_reads_all_its_files_in_order(tmp_path):
    """One below the other, by name; integers may be of different width."""
    write(tmp_path, "day-2.parquet", pl.DataFrame({"user": [3]}))
    write(tmp_path, "day-1.parquet", pl.DataFrame({"user": pl.Series([2], dtype=pl.Int16)}))
    assert scan("day-*.parquet", tmp_path, "source.files").collect()["user"].to_list() == [2, 3]


def test_several_paths_may_be_given(tmp_path):
    """A list is read in its order."""
    write(tmp_path, "b.csv")
    write(tmp_path, "a.csv")
    assert len(scan(["b.csv", "a.csv"], tmp_path, "source.files").collect()) == 4


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path):
    """A slip of the finger is pointed out."""
    write(tmp_path, "clicks.csv")
    with pytest.raises(DataError, match=r"source.files: no file .*click.csv; did you mean 'clicks.csv'\?"):
        scan("click.csv", tmp_path, "source.files")


def test_a_folder_is_not_a_file(tmp_path):
    """The message says what to write instead."""
    (tmp_path / "logs").mkdir()
    with pytest.raises(DataError, match=r"source.files: .*logs is a folder; give its files, such as logs/\*.parquet"):
        scan("logs", tmp_path, "source.files")


def test_an_unknown_form_is_refused(tmp_path):
    """Only what can be read is read."""
    (tmp_path / "a.xls").write_text("x")
    with pytest.raises(DataError, match=r"a.xls: expected one of .parquet, .csv, .* got '.xls'"):
        scan("a.xls", tmp_path, "source.files")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_truncated_file_is_refused(tmp_path, name):
    """Half a file is no file."""
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"source.files: .*{name}: truncated, or not a \.\w+ file: "):
        scan(name, tmp_path, "source.files")


def test_a_file_broken_inside_is_refused_when_its_rows_are_read(tmp_path):
    """A CSV whose later row is of another type than its first 100,000."""
    (tmp_path / "a.csv").write_text("user\n" + "1\n" * 100_001 + "bob\n")
    with pytest.raises(DataError, match=r"impressions: cannot be read: could not parse `bob`"):
        collect(scan("a.csv", tmp_path, "source.files"), "impressions")


def test_an_empty_table_is_refused(tmp_path):
    """Zero rows, with or without a header."""
    write(tmp_path, "a.parquet", ROWS.clear())
    with pytest.raises(DataError, match=r"impressions: expected at least one row, got an empty table"):
        collect(scan("a.parquet", tmp_path, "source.files"), "impressions")
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(DataError, match=r"b.csv: expected at least one row, got an empty file"):
        scan("b.csv", tmp_path, "source.files")


def test_files_of_different_columns_are_refused(tmp_path):
    """Which file lacks what, and which column is of another type."""
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", ROWS.drop("word"))
    with pytest.raises(DataError, match=r"b.csv: no column 'word', which .*a.csv has"):
        scan("*.csv", tmp_path, "source.files")
    write(tmp_path, "b.csv", ROWS.with_columns(user=pl.lit("x")))
    with pytest.raises(DataError, match=r"b.csv: column 'user': expected Int64 as in a.csv, got String"):
        scan("*.csv", tmp_path, "source.files")


def test_an_absent_column_is_named_with_the_nearest(tmp_path):
    """Or with all there are."""
    frame = ROWS.lazy()
    with pytest.raises(DataError, match=r"source.files: no column 'usr'; did you mean 'user'\?"):
        require(frame, ["usr"], "source.files")
    with pytest.raises(DataError, match=r"source.files: no column 'price'; it has user, word"):
        require(frame, ["price"], "source.files")


def test_text_is_split_into_lists():
    """However a CSV writes them."""
    column = pl.DataFrame({"a": ["[3, 7]", "3|7", " 3 7 ", "", None, "['x','y']"]})
    made = column.select(listed("a", pl.String())).to_series().to_list()
    assert made == [["3", "7"], ["3", "7"], ["3", "7"], [], None, ["x", "y"]]
