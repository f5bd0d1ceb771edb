"""Files as programs leave them: quotes, objects, folders with values in their names, and what CSV looks like."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.logs.files import scan
from features.logs.logs import columns_in
from features.logs.timestamps import TIME
from rec.errors import DataError
from rec.spec import Spec, parse
from rec.spec.spec import LogRules
from tests.features.reads import whole
from tests.features.test_bad_input import verdicts

SPEC = """
name = "x"
source = {{ kind = "{kind}", files = "{files}"{more} }}
keys = {{ user = "user", item = "item", time = "{time}"{keys} }}
{rest}
[context]
user = {{ kind = "id", values = "{user}" }}
[candidates]
item = {{ kind = "id" }}
[tasks]
a = {{ label = "a" }}
"""


def spec(files: str, *, kind: str = "impressions", time: str = "time", user: str = "int", **more: str) -> Spec:
    """A log of some files; `more` are settings of the source, of keys, and the rest."""
    said = {"more": "", "keys": "", "rest": "", **more}
    return parse(SPEC.format(kind=kind, files=files, time=time, user=user, **said))


def rows_of(described: Spec, folder: Path, *columns: str) -> pl.DataFrame:
    """The usable rows of a log."""
    return whole(described, sources.read(described, folder).impressions, columns=columns).rows


def test_columns_in_the_names_of_folders(tmp_path):
    """A day, a code and a number; a file's own column is its own, and what Hive calls nothing is null."""
    for day, shop, hour in (("2026-03-01", "007", 8), ("2026-03-02", "__HIVE_DEFAULT_PARTITION__", 10)):
        folder = tmp_path / f"log/dt={day}/shop%20no={shop}/hour={hour}/a=9"
        folder.mkdir(parents=True)
        pl.DataFrame({"user": [1], "item": [hour], "a": [1]}).write_parquet(folder / "part-0.parquet")
        pl.DataFrame({"user": [2], "item": [hour], "a": [0]}).write_csv(folder / "part-1.csv")
        (folder / "_SUCCESS").write_text("")
    rows = rows_of(spec("log/**/*", time="dt"), tmp_path, "user", "shop no", "hour", "a")
    assert rows.sort(TIME, "user").select(pl.col(TIME).dt.day(), "user", "shop no", "hour", "a").rows() == [
        (1, 1, "007", 8, 1), (1, 2, "007", 8, 0), (2, 1, None, 10, 1), (2, 2, None, 10, 0),
    ]  # fmt: skip
    chosen = spec("log/**/*", time="dt", more=""", where = "dt = '2026-03-02' AND hour > 9" """)
    assert rows_of(chosen, tmp_path, "hour")["hour"].to_list() == [10, 10]
    with pytest.raises(DataError, match=r"log is a folder; give its files, such as log/\*\*/\*.parquet"):
        sources.read(spec("log"), tmp_path)


@pytest.mark.parametrize(("form", "separator"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("title", ['screen 24" wide', '"Best of the year, they said'])
def test_a_stray_quote_is_named_and_may_be_no_quote(tmp_path, form, separator, title):
    """The line it stands in, and the setting."""
    lines = [["user", "item", "time", "a", "title"], *([str(n), "1", "2026-03-01", "0", "plain"] for n in range(600))]
    lines[102][-1] = title.replace(",", "") if form == "csv" else title
    (tmp_path / f"log.{form}").write_text("\n".join(separator.join(line) for line in lines) + "\n")
    with pytest.raises(DataError, match=rf'log.{form}: line 103 has a " that opens and does not close: .*quote = '):
        sources.read(spec(f"log.{form}"), tmp_path)
    rows = rows_of(spec(f"log.{form}", rest='logs.quote = ""'), tmp_path, "user", "title")
    assert (len(rows), rows["title"][101]) == (600, lines[102][-1])


def test_a_line_that_is_no_json_is_named(tmp_path):
    """Cut off, or something else; numbers and text of one name are text."""
    (tmp_path / "log.jsonl").write_text('{"user": 1, "item": 2, "time": "2026-03-01", "a": true}\n\n{"user": "x", "it')
    with pytest.raises(DataError, match=r"""log.jsonl: line 3 is no JSON object: '{"user": "x", "it'"""):
        sources.read(spec("log.jsonl"), tmp_path)
    lines = [{"user": 1, "item": 2, "time": "2026-03-01", "a": True}, {"user": "x", "item": 2.0, "time": "2026-03-01"}]
    (tmp_path / "log.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    read = rows_of(spec("log.jsonl", user="string"), tmp_path, "user", "item", "a")
    assert read.select("user", "item", "a").rows() == [("1", 2, True), ("x", 2, None)]


def test_a_list_beside_a_single_value_in_lines_of_json_is_named(tmp_path):
    """No parser of typed columns reads both: the column and the two lines are named."""
    lines = [{"user": 1, "item": 2, "time": "2026-03-01", "a": 1, "tags": tags} for tags in (None, [3, 7], 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="'tags' is a single value in line 3 and a list in line 2: write it in one way"):
        sources.read(spec("log.jsonl"), tmp_path)


def test_a_quote_may_be_single(tmp_path):
    """And a value in quotes may hold a separator and a line break."""
    (tmp_path / "log.csv").write_text("user,item,time,a,title\n1,2,2026-03-01,0,'a, b\nc'\n")
    assert rows_of(spec("log.csv", rest='logs.quote = "\'"'), tmp_path, "title")["title"].to_list() == ["a, b\nc"]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_fields_of_objects_are_columns(tmp_path, form):
    """Of an object, of objects in it, and of objects in a list; a list of objects is no list of ids."""
    rows = [
        {"user": "u1", "time": "2026-03-01T00:00:00Z", "device": {"os": "ios", "screen": {"w": 3}},
         "shown": [{"item": 7, "price": 1.5}, {"item": 8, "price": None}], "clicks": [8]},
        {"user": "u2", "time": "2026-03-01T01:00:00Z", "device": None, "clicks": [],
         "shown": [{"item": 7, "price": 2.5}]},
    ]  # fmt: skip
    if form == "parquet":
        pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    else:
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = (
        'events = { a = { items = "clicks" }, seen = { items = "shown.item", values = { price = "shown.price" } } }'
    )
    said = {"kind": "requests", "user": "string", "keys": ', request = "rid"'}
    described = spec(f"log.{form}", **said, more=f', shown = "shown.item", {events}')
    read = rows_of(described, tmp_path, "user", "item", "a", "price", "device.os", "device.screen.w")
    assert read.drop("time", TIME).rows() == [
        ("u1", 7, 0, 1.5, "ios", 3), ("u1", 8, 1, None, "ios", 3), ("u2", 7, 0, 2.5, None, None),
    ]  # fmt: skip
    wrong = r"'shown': expected lists of ids, got List\(Struct.*, such as shown.item; the first is {'item': 7.* \(log"
    with pytest.raises(DataError, match=wrong):
        sources.read(spec(f"log.{form}", **said, more=f', shown = "shown", {events}'), tmp_path)


def test_ids_beyond_64_bits_are_text_where_the_spec_says_so(tmp_path):
    """Refused otherwise, with what to say."""
    large = 2**63 + 5
    table = pl.DataFrame({"user": pl.Series([large], dtype=pl.UInt64), "item": [1], "time": ["2026-03-01"], "a": [0]})
    table.write_parquet(tmp_path / "log.parquet")
    table.write_csv(tmp_path / "log.csv")
    for form in ("parquet", "csv"):
        assert rows_of(spec(f"log.{form}", user="string"), tmp_path, "user")["user"].to_list() == [str(large)]
    described = spec("log.parquet")
    read = whole(described, sources.read(described, tmp_path).impressions, columns=["user"])
    reason = 'user: does not fit 64 bits with a sign; say values = "string" to read it as text'
    assert read.bad.reasons[reason][0] == 1


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_the_clock_of_a_log_may_be_local(tmp_path, form):
    """Nine in the morning in Shanghai is one in UTC."""
    at = datetime(2026, 3, 1, 9)  # noqa: DTZ001
    table = pl.DataFrame({"user": [1], "item": [1], "time": [at], "a": [0]})
    writers = {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}
    writers[form](tmp_path / f"log.{form}")
    described = spec(f"log.{form}", keys=', time_zone = "Asia/Shanghai"')
    assert rows_of(described, tmp_path)[TIME].to_list() == [datetime(2026, 3, 1, 1, tzinfo=UTC)]


def test_what_a_csv_looks_like_is_no_code_without_its_zeros(tmp_path):
    """A column of which the spec says nothing: words of no value are none of its values, whatever they look like."""
    (tmp_path / "log.csv").write_text(
        "code,whole,part,word,truth,large,nothing\n007,7,7,7,True,18446744073709551615,\n12,NULL,NaN,x,,1,NA\n1,\\N,7.5,,false,2,nan\n"
    )
    (piece,), _ = scan("log.csv", tmp_path, "source.files", LogRules())
    kinds = {name: str(kind) for name, kind in columns_in([piece]).items()}
    assert kinds == {"code": "String", "whole": "Int64", "part": "Float64", "word": "String", "truth": "Boolean",
                     "large": "String", "nothing": "Null"}  # fmt: skip


def test_what_may_be_meant_otherwise_is_warned_of(tmp_path):
    """A word of no value among text, and a list of which nobody said what separates it: with a row each."""
    (tmp_path / "log.csv").write_text("user,item,time,a,tags\nNULL,1,2026-03-01,0,a|b\nu,1,2026-03-01,0,c\n")
    text = SPEC.format(kind="impressions", files="log.csv", time="time", user="string", more="", keys="", rest="")
    described = parse(text.replace("[tasks]", 'tags = { kind = "ids", values = "string" }\n[tasks]'))
    read = whole(described, sources.read(described, tmp_path).impressions)
    assert read.rows.select("user", "tags").rows() == [("NULL", ["a|b"]), ("u", ["c"])]
    assert read.bad.doubts == {
        "user: read as a value; if it means that there is none, add it to logs.missing": (
            1, ["got 'NULL': user=NULL item=1 time=2026-03-01 (log.csv)"]),
        "tags: read as one id; if it is a list, say what separates its ids (split)": (
            1, ["got 'a|b': user=NULL item=1 time=2026-03-01 (log.csv)"]),
    }  # fmt: skip
    from features.logs.reader import findings

    assert [passed for passed, _ in verdicts(findings(read.bad, described, "impressions"))] == [True] * 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("user,item,time,a,a\n1,1,0,1,0\n", "has two columns 'a': expected a name for each"),
        ("user;item;time;a\n1;1;0;1\n", "has one column, 'user;item;time;a': expected ',' between columns, got ';'"),
        ("user\titem\ttime\ta\n1\t1\t0\t1\n", r"expected ',' between columns, got '\\t'"),
        ("user,item,time,a\n1,1,0,1\n".encode("utf-16"), "is UTF-16 text: expected UTF-8"),
    ],
)
def test_a_header_that_does_not_name_columns_is_refused(tmp_path, text, reason):
    """No column is taken for another, and the reason is no missing column."""
    (tmp_path / "log.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=reason):
        sources.read(spec("log.csv"), tmp_path)


def test_names_that_differ_by_bytes_that_are_no_text_are_warned_of(tmp_path):
    """Two strangers of a Latin-1 file may be one user."""
    log = "user,item,time,a\nJos\xe9,1,0,1\nJos\xe8,1,0,1\nAnn,1,0,1\n"
    (tmp_path / "log.csv").write_bytes(log.encode("latin-1"))
    described = spec("log.csv", user="string")
    doubts = whole(described, sources.read(described, tmp_path).impressions).bad.doubts
    assert {text: count for text, (count, _) in doubts.items()} == {
        "user: text that is not UTF-8: values that differed may be equal now": 2
    }


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ("true 0 1", [1, 0, 1]), ("true null 0.0", [1, None, 0]), ("9007199254740993 2.0 1", [9007199254740993, 2, 1]),
        ("false true null", [0, 1, None]), ('"7" 8 9.0', [7, 8, 9]), ("18446744073709551615 1 1", [None, 1, 1]),
    ],
)  # fmt: skip
def test_lines_of_json_may_write_a_value_each_in_its_own_way(tmp_path, values, wanted):
    """Services log one column as true, 1 and 1.0, and no whole number is rounded for it."""
    lines = [f'{{"user": {value}, "item": 1, "time": {i}, "a": 1}}' for i, value in enumerate(values.split())]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    read_rows = whole(spec("log.jsonl"), sources.read(spec("log.jsonl"), tmp_path).impressions)
    if values.startswith("18"):
        assert read_rows.bad.count == 1
        wanted = wanted[1:]
    assert read_rows.rows["user"].to_list() == wanted
