"""How text files are written: signs between columns and before decimals, byte order marks, names in quotes, maps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from features import sources
from features.logs.timestamps import TIME
from rec.errors import DataError, SpecError
from rec.spec import Spec, parse
from tests.features.reads import whole

SPEC = """
name = "x"
source = {{ kind = "impressions", files = "log.{form}"{more} }}
keys = {{ user = "user", item = "item", time = "{time}"{keys} }}
{rest}
[context]
user = {{ kind = "id", values = "string" }}
[candidates]
item = {{ kind = "id" }}
{candidates}
[tasks]
a = {{ label = "a" }}
"""


def spec(form: str, *, time: str = "time", **said: str) -> Spec:
    """A log of one file; `said` are settings of the source, of keys, of candidates, and the rest."""
    return parse(SPEC.format(form=form, time=time, **{"more": "", "keys": "", "rest": "", "candidates": "", **said}))


def rows_of(described: Spec, folder: Path, *columns: str) -> pl.DataFrame:
    """The usable rows of a log."""
    return whole(described, sources.read(described, folder).impressions, columns=columns).rows


COMMAS = 'user;item;time;a;price;left;code\n"12,0";7;2026-03-01;1;7,5;0,25;1,5\n12;8,0;2026-03-01;0;1.234,5;;x\n'


@pytest.mark.parametrize(("form", "sign"), [("csv", ";"), ("tsv", "\t"), ("csv.gz", "|"), ("csv", "\x01")])
def test_decimals_behind_a_comma(tmp_path, form, sign):
    """Numbers, ids and keys; text stays as it is; a point where a comma is due makes no number."""
    text = COMMAS.replace(";", sign).encode()
    (tmp_path / f"log.{form}").write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    rules = f"[logs]\ndecimal = ','\nseparator = {json.dumps(sign)}\nbad_rows = 1"
    described = spec(form, rest=rules, candidates='price = { kind = "number" }')
    read = whole(described, sources.read(described, tmp_path).impressions, columns=["user", "item", "left", "code"])
    assert read.rows.select("user", "item", "left", "code").rows() == [("12", 7, 0.25, "1,5"), ("12", 8, None, "x")]
    read = whole(described, sources.read(described, tmp_path).impressions, columns=["price"])
    assert (read.rows["price"].to_list(), [*read.bad.reasons]) == ([7.5], ["price: expected a number"])


def test_lists_and_conditions_of_decimals_behind_a_comma(tmp_path):
    """Numbers in text are apart at other signs; in brackets they are as JSON has them; `where` and labels compare."""
    rows = ["u;1;2026-03-01;7,5;1,5|2;[1.5, 2]", "v;1;2026-03-01;7,25;3;[3]", "w;1;2026-03-01;0,5;;[]"]
    (tmp_path / "log.csv").write_text("user;item;time;a;some;same\n" + "\n".join(rows) + "\n")
    described = spec("csv", rest='logs = { decimal = ",", separator = ";" }', more=', where = "a >= 7,3"')
    with pytest.raises(SpecError, match=r"source\.where"):
        sources.read(described, tmp_path)
    described = spec("csv", rest='logs = { decimal = ",", separator = ";" }', more=', where = "a > 7"')
    assert rows_of(described, tmp_path, "user", "a").select("user", "a").rows() == [("u", 7.5), ("v", 7.25)]
    kinds = {"some": pl.List(pl.Float64()), "same": pl.List(pl.Float64())}
    logs = sources.read(described, tmp_path)
    lists = whole(described, logs.impressions, columns=["some", "same"], kinds=kinds).rows
    assert lists["some"].to_list() == lists["same"].to_list() == [[1.5, 2.0], [3.0]]


@pytest.mark.parametrize("sign", ["::", "", '"', "\n", "\u00a7"])
def test_a_sign_between_columns_is_one_character(sign):
    """Others are refused with the spec."""
    with pytest.raises(SpecError, match=r"logs\.separator: expected one ASCII character, such as ';'"):
        spec("csv", rest=f"logs.separator = {json.dumps(sign)}")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "jsonl.gz", "csv.gz"])
def test_a_byte_order_mark_is_no_text(tmp_path, form):
    """Of no column's name, and of no line of JSON."""
    sign = "\t" if "tsv" in form else ","
    text = sign.join(("user", "item", "time", "a")) + "\n" + sign.join(("u", "7", "2026-03-01", "1")) + "\n"
    if "jsonl" in form:
        text = '{"user": "u", "item": 7, "time": "2026-03-01", "a": 1}\n'
    data = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / f"log.{form}").write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    assert rows_of(spec(form), tmp_path, "user", "item", "a").select("user", "item", "a").rows() == [("u", 7, 1)]


def test_a_quote_in_the_name_of_a_column_is_written_twice(tmp_path):
    """As in a value."""
    (tmp_path / "log.csv").write_text('user,item,time,a,"24"" screens","x, ""y"""\nu,1,2026-03-01,1,7,8\n')
    rows = rows_of(spec("csv"), tmp_path, '24" screens', 'x, "y"')
    assert rows.select('24" screens', 'x, "y"').row(0) == (7, 8)


@pytest.mark.parametrize("day", ["20260301", "20260301.0", "202603011230"])
@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_day_that_is_a_number_is_no_count(tmp_path, form, day):
    """20260301 would be a moment of August 1970; the format that makes it a day is named."""
    value = float(day) if "." in day else int(day)
    table = pl.DataFrame({"user": ["u", "v"], "item": [1, 1], "time": [value, value + 100], "a": [1, 0]})
    {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[form](
        tmp_path / f"log.{form}"
    )
    for keys in ("", ', time_unit = "auto"'):
        described = spec(form, keys=keys)
        bad = whole(described, sources.read(described, tmp_path).impressions).bad
        written = "%Y%m%d" if len(f"{value:.0f}") == 8 else "%Y%m%d%H%M"
        (reason,) = bad.reasons
        assert reason == (
            f"time: expected a timestamp, and this looks like a day; keys.time_format = '{written}' says that it is one"
        )
    rows = rows_of(spec(form, keys=f', time_format = "{written}"'), tmp_path)
    assert rows.select(pl.col(TIME).dt.strftime("%Y-%m-%d")).to_series()[0] == "2026-03-01"


def test_counts_that_are_now_and_then_like_days_are_counts(tmp_path):
    """A clock that began with the log passes 20,260,301 seconds after eight months."""
    pl.DataFrame({"user": ["u", "v"], "item": [1, 1], "time": [20260301, 20260399], "a": [1, 0]}).write_parquet(
        tmp_path / "log.parquet"
    )
    rows = rows_of(spec("parquet"), tmp_path)
    assert rows[TIME].dt.timestamp("ms").to_list() == [20260301000, 20260399000]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_value_of_a_map_is_a_column(tmp_path, form):
    """By its key, in every file that has the map; a row without the key has no value; the map itself is none."""
    kind = pa.map_(pa.string(), pa.int64())
    rest = {"item": [1, 1], "time": ["2026-03-01"] * 2, "a": [1, 0]}
    for name, maps in (("log0", [[("age", 7), ("b c", 1)], []]), ("log1", [[("zip", 3)], None])):
        table = pa.table({"user": pa.array([name, "v"]), "props": pa.array(maps, kind), **rest})
        write = parquet.write_table if form == "parquet" else feather.write_feather
        write(table, str(tmp_path / f"{name}.{form}"))
    described = parse(
        SPEC.format(form=form, time="time", more="", keys="", rest="", candidates="").replace("log.", "log*.")
    )
    rows = rows_of(described, tmp_path, "props.age", "props.zip", "props.b c")
    assert rows.select("props.age", "props.zip", "props.b c").rows() == [
        (7, None, 1), (None, None, None), (None, 3, None), (None, None, None)
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"no column 'props.ages'; did you mean 'props.age'\?"):
        rows_of(described, tmp_path, "props.ages")
