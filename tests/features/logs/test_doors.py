"""The same log in every form a file may have: the session tables, whose truth is written by hand, are the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from features import sources
from features.pipeline import build
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import Spec, parse

START = datetime(2026, 3, 1, tzinfo=UTC)
FORMS = ["parquet", "arrow", "csv", "tsv", "csv.gz", "csv.zst", "tsv.gz", "jsonl", "ndjson", "jsonl.gz", "jsonl.zst"]
NAN = float("nan")
LOG = {  # as a typed form has it, and as text does
    "user_id": (["007", "12", None, "", "\\N", "nan"], ["007", "12.0", "", '""', "\\N", "nan"]),
    "item_id": ([1.0, 2.0, 3.0, 1.0, 2.0, 3.0], ["1", "2.0", " 3 ", "1", "2", "3"]),
    "time": ([START + timedelta(hours=hour) for hour in range(6)], [f"2026-03-01T0{hour}:00:00Z" for hour in range(6)]),
    "is_new": ([True, False, None, True, False, True], ["True", "False", "", "true", "false", "TRUE"]),
    "price": ([Decimal("9.50"), Decimal("7.00"), None, *[Decimal(1)] * 3], ["9.50", "7", "NULL", "1", "1", "1.0"]),
    "store": (["0004", "0005", None, "12", "1.0", "NULL"], ["0004", "0005", "", "12", "1.0", "NULL"]),
    "size": ([37.0, 38.5, NAN, 37.0, 40.0, 40.0], ["37", "38.5", "NaN", "37", "40", "40"]),
    "genres": ([["Sci-Fi", "Film Noir"], [], None, ["a|b"], ["c"], ["d"]],
               ["Sci-Fi; Film Noir;", ";", "", "a|b", '"[\'c\']"', "d"]),
    "shops": ([[3, 7], [], None, [1], [1], [1]], ["3|7", "[]", "", "1", "1", "1"]),
    "kind": (["01", "01", "01", "01", "01", "02"], ["01", "01", "01", "01", "01", "02"]),
    "clicked": ([1, 1, 1, 0, 0, 1], ["1", "1", "1", "0", "0", "1"]),
    "dwell": ([40.0, NAN, 3.0, NAN, None, 50.0], ["40", "NaN", "3.0", "nan", "", "50"]),
}  # fmt: skip
USERS = {
    "user_id": (["007", "12", None], ["007", "12.0", "\\N"]),
    "zip": (["00037", "NA", "1"], ["00037", "NA", "1"]),
    "age": ([30.0, NAN, 1.0], ["30", "NaN", "1"]),
}
SPEC = """
name = "doors"
source = {{ kind = "impressions", files = "log.{form}", users = "users.{form}", where = "kind = '01' AND item_id > 0" }}
keys = {{ user = "user_id", item = "item_id", time = "time" }}
split = {{ validation = 2026-03-02, test = "2026-03-03" }}
[context]
user_id = {{ kind = "id", values = "string" }}
zip = {{ kind = "id", values = "string" }}
age = {{ kind = "number" }}
shown = {{ kind = "number", make = "count", per = "user_id", scale = "none" }}
[candidates]
item_id = {{ kind = "id" }}
is_new = {{ kind = "number" }}
new_id = {{ kind = "id", column = "is_new" }}
price = {{ kind = "number" }}
store = {{ kind = "id", values = "string" }}
size = {{ kind = "id", values = "string" }}
genres = {{ kind = "ids", values = "string", split = ";" }}
shops = {{ kind = "ids" }}
dwelt = {{ kind = "kept", values = "float", column = "dwell" }}
[tasks]
click = {{ label = "clicked" }}
read = {{ label = "clicked AND dwell >= 30" }}
"""
TRUTH = [  # user, zip, age, shown, item, new, as an id, price, store, size, genres, shops, dwelt, click, read
    ("007", "00037", 30.0, 0.0, 1, 1.0, 1, 9.5, "0004", "37", ["Sci-Fi", "Film Noir"], [3, 7], 40.0, 1, 1),
    ("12", "NA", None, 0.0, 2, 0.0, 0, 7.0, "0005", "38.5", [], [], None, 1, -1),
    (None, None, None, None, 3, None, None, None, None, None, [], [], 3.0, 1, 0),
    (None, None, None, None, 1, 1.0, 1, 1.0, "12", "37", ["a|b"], [1], None, 0, 0),
    (None, None, None, None, 2, 0.0, 0, 1.0, "1.0", "40", ["c"], [1], None, 0, 0),
]


def write(folder: Path, name: str, columns: dict, form: str) -> None:
    """The rows in a form; typed, or as text writes them."""
    typed = pl.DataFrame({column: values for column, (values, _) in columns.items()}, strict=False)
    path = folder / f"{name}.{form}"
    if form in ("parquet", "arrow"):
        (typed.write_parquet if form == "parquet" else typed.write_ipc)(path)
        return
    if form.startswith(("json", "ndjson")):
        lines = [json.dumps(row, default=plain).replace("NaN", "null") for row in typed.to_dicts()]
    else:
        cells = zip(*(texts for _, texts in columns.values()), strict=True)
        lines = [("\t" if form.startswith("tsv") else ",").join(row) for row in (columns, *cells)]
    packed(path, "\n".join(lines) + "\n")


def plain(value: object) -> object:
    """What JSON has no type for."""
    return value.isoformat() if isinstance(value, datetime) else float(value)  # type: ignore[arg-type]  # of a Decimal


def packed(path: Path, text: str) -> None:
    """A text file, compressed as its name says."""
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.CompressedOutputStream(str(path), codec) if codec else path.open("wb") as out:
        out.write(text.encode())


def tables(spec: Spec, folder: Path) -> tuple[pl.DataFrame, dict]:
    """The candidates of a build in order of time, each with its context, and the manifest."""
    manifest = build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent())
    rows = pl.concat(pl.read_ipc(path) for path in sorted((folder / "data").glob("*/part-*.arrow")))
    return rows.sort("time").explode("candidates").unnest("context").unnest("candidates"), manifest


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tables(tmp_path, form):
    """Strangers stay strangers, codes keep their zeros, NaN is nothing, lists are split where the spec says."""
    write(tmp_path, "log", LOG, form)
    write(tmp_path, "users", USERS, form)
    rows, manifest = tables(parse(SPEC.format(form=form)), tmp_path)
    assert rows.drop("request_id", "time").rows() == TRUTH
    warned = [f["text"] for f in manifest["findings"] if f["level"] == "warn" and "logs.missing" in f["text"]]
    assert warned == ["zip: read as a value; if it means that there is none, add it to logs.missing"]


EVENTS = """
name = "events"
source = {{ kind = "events", impressions = "log.{form}", events.bought = {{ files = "bought.{form}", where = "code = '007'", values = {{ paid = "amount" }} }} }}
keys = {{ user = "user_id", item = "item_id", time = "time" }}
split = {{ validation = 2026-03-02, test = 2026-03-03 }}
logs.missing = ["", "-"]
[context]
user_id = {{ kind = "id", values = "string" }}
[candidates]
item_id = {{ kind = "id", values = "string" }}
[tasks]
buy = {{ label = "bought AND paid > 5" }}
"""  # noqa: E501


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "tsv.zst"])
def test_events_are_read_as_impressions_are(tmp_path, form):
    """Keys have the impressions' type, whatever their own; words of no value are the spec's."""
    hours = [START + timedelta(hours=hour) for hour in range(4)]
    texts = [hour.isoformat() for hour in hours]
    users, items = ["01", "2", "-", "4"], ["010", "7", "7", "7"]
    write(tmp_path, "log", {"user_id": (users, users), "item_id": (items, items), "time": (hours, texts)}, form)
    happened = {
        "user_id": ([*users], [*users]),
        "item_id": (["010", "7.0", "7", "7"], ["010", "7.0", "7", "7"]),
        "time": (hours, texts),
        "amount": ([9.0, NAN, 9.0, 9.0], ["9", "nan", "9", "9"]),
        "code": (["007", "007", "007", "7"], ["007", "007", "007", "7"]),
    }
    write(tmp_path, "bought", happened, form)
    rows, _ = tables(parse(EVENTS.format(form=form)), tmp_path)
    assert rows.select("user_id", "item_id", "buy").rows() == [
        ("01", "010", 1),
        ("2", "7", -1),
        (None, "7", 0),
        ("4", "7", 0),
    ]


SENTINELS = """
name = "sentinels"
source = { kind = "impressions", files = "log.csv" }
keys = { user = "user", item = "item", time = "time" }
split = { validation = 1970-02-01, test = 1970-02-02 }
[context]
user = { kind = "id" }
last = { kind = "number", make = "since", task = "click" }
clicks = { kind = "ids", make = "history", task = "click", table = "item" }
[candidates]
item = { kind = "id" }
shown = { kind = "number", make = "count", per = "item", scale = "none" }
price = { kind = "number" }
[tasks]
click = { label = "clicked" }
"""


def test_zero_and_minus_one_are_values(tmp_path):
    """The user 0, the item -1, the moment 0 and a price of 0 or -1; nobody and nothing are null."""
    lines = ["0,0,0,0,1", "0,-1,36000,-1,1", "-1,0,72000,,1", "-1,0,108000,0,0", "0,0,144000,0,0", ",0,180000,0,0"]
    (tmp_path / "log.csv").write_text("user,item,time,price,clicked\n" + "\n".join(lines) + "\n")
    rows, _ = tables(parse(SENTINELS), tmp_path)
    ever = [None if last is None else int(last.timestamp()) for last in rows["last"]]
    clicks = rows["clicks"].to_list()
    assert list(zip(rows["user"], ever, clicks, rows["item"], rows["shown"], rows["price"], strict=True)) == [
        (0, None, [], 0, 0.0, 0.0),
        (0, 0, [0], -1, 0.0, -1.0),
        (-1, None, [], 0, 1.0, None),
        (-1, 72000, [0], 0, 2.0, 0.0),
        (0, 36000, [0, -1], 0, 3.0, 0.0),
        (None, None, [], 0, 4.0, 0.0),
    ]  # fmt: skip


def test_a_label_of_minus_one_is_no_missing_one(tmp_path):
    """It is refused, with its value; null is not observed."""
    (tmp_path / "log.csv").write_text("user,item,time,price,clicked\n1,1,0,1,-1\n1,2,1,1,\n")
    with pytest.raises(SpecError, match=r"tasks.click.label: expected 0 or 1, got -1; write a comparison"):
        tables(parse(SENTINELS), tmp_path)
