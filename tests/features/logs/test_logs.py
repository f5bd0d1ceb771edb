"""Files of logs: pieces that are read alike whatever their form, and what is told of those that cannot be."""

from __future__ import annotations

import pickle
from pathlib import Path

import polars as pl
import pytest

from features.logs import files
from features.logs.files import refuse_since, scan, side, table, where_true
from features.logs.logs import BAD, Logs, Piece, collect, columns_in, kinds_of
from rec.errors import DataError, SpecError
from rec.spec import parse
from tests.features.reads import whole

ROWS = pl.DataFrame({"user": [1, 2], "word": ["a", None]})
SPEC = parse('name = "x"\ntasks = { a = { label = "a" } }')


def write(folder: Path, name: str, rows: pl.DataFrame = ROWS) -> Path:
    """The rows in a file of the form its name says."""
    path = folder / name
    if path.suffix == ".parquet":
        rows.write_parquet(path)
    elif path.suffix in (".arrow", ".feather"):
        rows.write_ipc(path)
    elif path.suffix == ".gz":
        rows.write_csv(path, compression="gzip")
    else:
        rows.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def read(pattern: str | list[str], folder: Path) -> pl.DataFrame:
    """All rows of all pieces."""
    return whole(SPEC, scan(pattern, folder, "source.files")[0]).rows


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv", "a.csv.gz", "a.arrow", "a.feather"])
def test_every_form_gives_the_same_rows(tmp_path, name):
    """Parquet, CSV, TSV and Arrow hold the same table."""
    write(tmp_path, name)
    (piece,), findings = scan(name, tmp_path, "source.files")
    assert whole(SPEC, [piece]).rows.equals(ROWS)
    assert dict(piece.kinds) == dict(ROWS.schema)
    assert (piece.name, findings) == (name, ())


def test_a_glob_is_a_piece_per_file_by_name(tmp_path):
    """One below the other; integers may be of different width."""
    write(tmp_path, "day-2.parquet", pl.DataFrame({"user": [3]}))
    write(tmp_path, "day-1.parquet", pl.DataFrame({"user": pl.Series([2], dtype=pl.Int16)}))
    pieces, _ = scan("day-*.parquet", tmp_path, "source.files")
    assert [piece.name for piece in pieces] == ["day-1.parquet", "day-2.parquet"]
    assert read("day-*.parquet", tmp_path)["user"].to_list() == [2, 3]


def test_several_paths_may_be_given(tmp_path):
    """A list is read in its order."""
    write(tmp_path, "b.csv")
    write(tmp_path, "a.csv")
    assert [piece.name for piece in scan(["b.csv", "a.csv"], tmp_path, "source.files")[0]] == ["b.csv", "a.csv"]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_large_file_is_several_pieces(tmp_path, name, monkeypatch):
    """Cut between row groups; together they are the file, once."""
    monkeypatch.setattr(files, "ROWS", 10)
    rows = pl.DataFrame({"user": range(64)})
    rows.write_parquet(tmp_path / "a.parquet", row_group_size=4)
    rows.write_ipc(tmp_path / "a.arrow")
    pieces, _ = scan(name, tmp_path, "source.files", index="@row")
    parts = [whole(SPEC, [piece]).rows for piece in pieces]
    assert [len(rows) for rows in parts] == ([12] * 5 + [4] if name == "a.parquet" else [10] * 6 + [4])
    assert pl.concat(parts)["user"].to_list() == pl.concat(parts)["@row"].to_list() == list(range(64))
    assert pieces[1].name == f"{name} from row {len(parts[0])}"


def test_a_piece_of_a_large_file_does_not_read_what_is_before_it(tmp_path, monkeypatch):
    """The first row group is destroyed, and the second is read as if it were not."""
    monkeypatch.setattr(files, "ROWS", 1000)
    path = tmp_path / "a.parquet"
    rows = pl.DataFrame({"user": range(2000)}).with_columns(pl.col("user").hash())
    rows.write_parquet(path, row_group_size=1000, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[4:200] = bytes([255]) * 196
    path.write_bytes(raw)
    first, second = scan("a.parquet", tmp_path, "source.files")[0]
    assert whole(SPEC, [first]).bad.count == 1000
    assert whole(SPEC, [second]).rows.equals(rows[1000:])


def test_pieces_travel_to_other_processes(tmp_path):
    """With everything that is needed to read them."""
    write(tmp_path, "a.parquet")
    write(tmp_path, "b.csv")
    pieces, _ = scan(["a.parquet", "b.csv"], tmp_path, "source.files")
    sent = pickle.loads(pickle.dumps(where_true(pieces, "word IS NULL", "source.where")))
    assert whole(SPEC, sent).rows["user"].to_list() == [2, 2]


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
def test_a_truncated_file_alone_is_refused(tmp_path, name):
    """Half a file is no file."""
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"source.files: .*{name}: truncated, or not a \.\w+ file: "):
        scan(name, tmp_path, "source.files")
    with pytest.raises(DataError, match=rf"source.users: .*{name}: truncated, or not a \.\w+ file: "):
        table(name, tmp_path, "source.users")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "b.csv"])
def test_zero_rows_are_refused(tmp_path, name):
    """With or without a header."""
    write(tmp_path, "a.parquet", ROWS.clear())
    write(tmp_path, "a.csv", ROWS.clear())
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(DataError, match=rf"{name}: expected at least one row, got an empty file"):
        scan(name, tmp_path, "source.files")


def test_an_expression_chooses_rows(tmp_path):
    """The columns of a CSV are compared as what they look like."""
    write(tmp_path, "a.csv", pl.DataFrame({"who": [1, 2, 3], "type": [0, 1, 0], "open": [True, False, False]}))
    pieces, _ = scan("a.csv", tmp_path, "source.files")
    for sql in ("type = 0 AND NOT open", "who >= 3"):
        assert whole(SPEC, where_true(pieces, sql, "source.where")).rows["who"].to_list() == [3]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("word =", r"source.where: not an SQL expression: "),
        ("wrd = 1", r"source.where: no column 'wrd' in a.parquet; did you mean 'word'\?"),
        ("many > 1", r"source.where: 'many > 1' cannot be evaluated: "),
        ("length(word)", r"source.where: 'length\(word\)': expected true or false for a row, got UInt32"),
    ],
)
def test_an_expression_that_is_none_is_refused(tmp_path, sql, message):
    """Before a row is read."""
    write(tmp_path, "a.parquet", ROWS.with_columns(many=pl.concat_list("user")))
    with pytest.raises(SpecError, match=message):
        where_true(scan("a.parquet", tmp_path, "source.files")[0], sql, "source.where")


def test_a_side_table_is_typed_and_whole(tmp_path):
    """A column without any value has the type another file gives it; a file more or less is refused."""
    write(tmp_path, "a.csv", pl.DataFrame({"user": [1], "age": [None]}, schema_overrides={"age": pl.String}))
    write(tmp_path, "b.csv", pl.DataFrame({"user": [2], "age": [30]}))
    users = side("*.csv", "from", tmp_path, "source.users")
    assert users is not None
    assert ([piece.name for piece in users.pieces], users.since) == (["a.csv", "b.csv"], "from")
    assert columns_in(users.pieces) == {"user": pl.Int64, "age": pl.Int64}
    assert table("*.csv", tmp_path, "source.users").collect().rows() == [(1, None), (2, 30)]
    write(tmp_path, "c.csv", pl.DataFrame({"user": [2]}))
    with pytest.raises(DataError, match=r"source.users: .*c.csv: no column 'age', which .*a.csv has"):
        side("*.csv", None, tmp_path, "source.users")


def test_a_side_table_that_is_not_given(tmp_path):
    """Is none, unless a column of it is named."""
    assert side(None, None, tmp_path, "source.users") is None
    with pytest.raises(SpecError, match=r"source.users_since: 'from' is a column of source.users, which is not given"):
        refuse_since(None, "from", "source.users")


def test_a_piece_knows_its_columns():
    """Those of its frame, or of what its turn makes of it; a log has those of all its pieces."""
    plain = Piece(ROWS.lazy(), "a")
    turned = Piece(ROWS.lazy(), "b", turn=lambda rows: rows.select(pl.col("user").cast(pl.String).alias("who")))
    assert dict(kinds_of(plain)) == {"user": pl.Int64, "word": pl.String}
    assert columns_in([plain, turned]) == {"user": pl.Int64, "word": pl.String, "who": pl.String}
    nothing = Piece(ROWS.lazy(), "c", kinds={"user": pl.Null()})
    assert columns_in([nothing, plain])["user"] == pl.Int64
    assert columns_in(Logs.whole(ROWS.lazy()).impressions) == columns_in([plain])


def _odd(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.when(word="a").then(pl.lit("odd")).alias(BAD))


def test_a_turn_says_which_rows_it_cannot_use():
    """In a column of its own, by reason."""
    turned = Piece(ROWS.lazy(), "b", turn=_odd, reads=("word",))
    whole_rows = whole(SPEC, [turned], columns=["user"])
    assert (whole_rows.rows["user"].to_list(), whole_rows.bad.reasons) == (
        [2],
        {"odd": (1, ["user=1 word=a @bad=odd (b)"])},
    )


def test_files_of_one_name_in_folders_outside_are_two_files(tmp_path):
    """They are called by their whole paths, so that no row of one is taken for a row of the other."""
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        write(tmp_path / day, "log.parquet")
    (tmp_path / "specs").mkdir()
    pieces, _ = scan(str(tmp_path / "*/log.parquet"), tmp_path / "specs", "source.files")
    assert [piece.name for piece in pieces] == [str(tmp_path / day / "log.parquet") for day in ("monday", "tuesday")]
    assert [piece.file for piece in pieces] == [0, 1]


def test_a_file_that_several_globs_name_is_read_once(tmp_path):
    """Where it stands first; by another way to it, it is the same file."""
    write(tmp_path, "day-1.csv")
    write(tmp_path, "day-2.csv")
    (tmp_path / "again.csv").symlink_to(tmp_path / "day-2.csv")
    pieces, (finding,) = scan(["day-2.csv", "day-*.csv", "again.csv"], tmp_path, "source.files")
    assert [piece.name for piece in pieces] == ["day-2.csv", "day-1.csv"]
    assert (finding.text, finding.count, finding.examples) == (files.REPEATED, 1, ("day-2.csv",))
    assert len(collect(table(["*.csv", "day-1.csv"], tmp_path, "source.users"), "users")) == 4


def test_a_column_that_is_called_as_one_of_ours_is_refused(tmp_path):
    """`@time` stands beside the columns of the logs; `@timestamp` does not."""
    write(tmp_path, "a.parquet", ROWS.with_columns(pl.lit(1).alias("@time")))
    write(tmp_path, "b.parquet", ROWS.with_columns(pl.lit(1).alias("@timestamp")))
    with pytest.raises(DataError, match="has a column '@time', which is a name of ours; rename it"):
        scan("a.parquet", tmp_path, "source.files")
    assert "@timestamp" in scan("b.parquet", tmp_path, "source.files")[0][0].kinds
