from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from rec.atomic import read_json, write_json
from rec.data import splits
from rec.errors import DataError
from rec.progress import Silent
from serving.online.problems import RequestError
from serving.request_files import forms
from serving.request_files.score import score
from serving.scored_parts import ScoringWorkers
from tests.serving.conftest import NOW, items
from tests.serving.online.test_rank import full

TIME = "2026-03-09T10:00:00Z"
BAD = {  # rows that the endpoint refuses
    "bad type": {"time": TIME, "context": {"user_id": "bob"}, "candidates": items(3)},
    "bad number": {"time": TIME, "context": {"user_id": 7}, "candidates": [{"item_id": 3, "price": "dear"}]},
    "too large for float32": {"time": TIME, "context": {"user_id": 7}, "candidates": [{"item_id": 3, "price": 1e39}]},
    "too large for the model": {"time": TIME, "context": {}, "candidates": [{"item_id": 3, "item_click": 3e38}]},
    "the same item twice": {"time": TIME, "context": {"user_id": 7}, "candidates": items(3, 3)},
    "an unknown name": {"time": TIME, "context": {"usr": 7}, "candidates": items(3)},
    "too many candidates": {"time": TIME, "context": {"user_id": 7}, "candidates": items(*range(5000))},
}


@pytest.fixture(scope="session")
def requests(data, spec):
    """Requests that send everything, known ids only, unknown ids, nulls, nothing, and candidates in columns."""
    rows = next(splits.read(data, "test", spec)).slice(0, 20).to_pylist()
    more = [
        {"time": TIME, "context": {"user_id": 7}, "candidates": items(3, 4, 5)},
        {"time": TIME, "context": {"user_id": 987654}, "candidates": items(3, 987654)},
        {"time": TIME, "context": {}, "candidates": [{"item_id": 3, "price": None}, {"item_id": 4}]},
        {"time": TIME, "context": {"user_id": 7, "age": None}, "candidates": []},
        {"time": TIME, "context": {"user_id": 7.0, "city": 5}, "candidates": {"item_id": [5, 3], "price": [1, True]}},
    ]
    return [*map(full, rows), *more]


def lines(path, rows):
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(rows):
    """Requests that send the same names as a table, with timestamps instead of their text."""
    typed = [json.loads(json.dumps(row)) for row in rows]
    for row in typed:
        row["time"] = datetime.fromisoformat(row["time"])
        for candidate in row["candidates"]:
            candidate["listed"] = candidate["listed"] and datetime.fromisoformat(candidate["listed"])
    return pa.Table.from_pylist(typed)


def scored(bundle, files, out, **how):
    """Score files of requests on one thread."""
    return score(bundle, files, out, workers=ScoringWorkers(), progress=Silent(), **how)


def agree(service, rows, out):
    """Assert that a part holds, request by request, exactly the numbers of the endpoint's answers."""
    part = pl.read_parquet(out)
    start = 0
    for row in rows:
        answer = json.loads(service.rank(json.dumps(row).encode(), NOW).body)["candidates"]
        if isinstance(answer, dict):
            tasks = answer["tasks"]
            names = ("item_id", "rank", "score")
            answer = [
                {**{n: answer[n][i] for n in names}, "tasks": {t: tasks[t][i] for t in tasks}}
                for i in range(len(answer["rank"]))
            ]
        here = part.slice(start, len(answer))
        start += len(answer)
        assert here["position"].to_list() == list(range(len(answer)))
        best = here.sort("rank")
        assert best["rank"].to_list() == [line["rank"] for line in answer]
        assert best["candidates.item_id"].to_list() == [line["item_id"] for line in answer]
        assert best["score"].to_list() == [line["score"] for line in answer], "to the bit"
        for name in ("click", "buy", "buy|click"):
            assert best[f"tasks.{name}"].cast(float).to_list() == [line["tasks"][name] for line in answer]
    assert start == len(part)


def test_scores_are_those_of_the_endpoint_to_the_bit(bundle, service, requests, tmp_path):
    """Of requests that send all, some or nothing of what the spec has, by rows and by columns."""
    result = scored(bundle, [lines(tmp_path / "r.jsonl", requests)], tmp_path / "out")
    agree(service, requests, tmp_path / "out/part-00000.parquet")
    assert (result["requests"], result["rejected"], result["parts"]) == (len(requests), 0, 1)
    ids = pl.read_parquet(tmp_path / "out/part-00000.parquet")["request_id"].unique(maintain_order=True)
    assert ids.to_list()[-1] == f"r.jsonl:{len(requests)}", "one without an id is called by its place"


@pytest.mark.parametrize("form", ["parquet", "arrow", "feather"])
def test_tables_are_read_as_the_same_requests(bundle, service, requests, tmp_path, form):
    """Whatever the width of a number and the unit of a timestamp; NaN and null are missing."""
    rows = requests[:20]
    whole = table(rows)
    kind = whole.schema.field("candidates").type.value_type
    narrow = {"item_id": pa.int32(), "price": pa.float32(), "listed": pa.timestamp("ns", "Europe/Berlin")}
    fields = [pa.field(f.name, narrow.get(f.name, f.type)) for f in kind]
    whole = whole.set_column(3, "candidates", whole["candidates"].cast(pa.list_(pa.struct(fields))))
    path = tmp_path / f"r.{form}"
    if form == "parquet":
        pq.write_table(whole, path, row_group_size=7)
    else:
        feather.write_feather(whole, path, compression="lz4" if form == "feather" else "uncompressed", chunksize=7)
    scored(bundle, [path], tmp_path / "out")
    agree(service, rows, tmp_path / "out/part-00000.parquet")
    context = pa.StructArray.from_arrays([pa.array([7]), pa.array([float("nan")])], names=["user_id", "age"])
    candidates = pa.array([[{"item_id": 3, "price": None}]])
    times = pa.array([1_772_000_000], pa.timestamp("s", "UTC"))
    odd = pa.table({"request_id": [12], "time": times, "context": context, "candidates": candidates})
    pq.write_table(odd, tmp_path / "odd.parquet")
    scored(bundle, [tmp_path / "odd.parquet"], tmp_path / "odd")
    assert pl.read_parquet(tmp_path / "odd/*.parquet")["request_id"].to_list() == ["12"]
    at = datetime.fromtimestamp(1_772_000_000).astimezone().isoformat()
    same = {"time": at, "context": {"user_id": 7, "age": None}, "candidates": [{"item_id": 3, "price": None}]}
    agree(service, [same], tmp_path / "odd/part-00000.parquet")


def test_bad_rows_go_to_quarantine_with_the_endpoints_reason(bundle, service, requests, tmp_path):
    """And leave no trace in the scores of the others; the manifest counts them."""
    mixed = [row for pair in zip(requests, [*BAD.values(), *requests[7:]], strict=False) for row in pair][:14]
    path = lines(tmp_path / "r.jsonl", mixed)
    path.write_text(path.read_text() + "\n{broken\n")
    result = scored(bundle, [path], tmp_path / "out", bad_rows=0.6)
    agree(service, requests[:7], tmp_path / "out/part-00000.parquet")
    rejected = [json.loads(line) for line in (tmp_path / "out/_quarantine/part-00000.jsonl").read_text().splitlines()]
    assert {entry["file"] for entry in rejected} == {str(path)}
    assert [entry["row"] for entry in rejected] == [2, 4, 6, 8, 10, 12, 14, 16], "a blank line is a line, and no row"
    for entry, row in zip(rejected, BAD.values(), strict=False):
        with pytest.raises(RequestError) as refused:
            service.rank(json.dumps(row).encode(), NOW)
        assert entry["reason"] == str(refused.value).replace("\n", "; ")
    assert rejected[-1]["reason"].startswith("body: JSON is malformed")
    entry = read_json(tmp_path / "out/_manifest.json")["parts"]["part-00000.parquet"]
    assert (entry["rows"], entry["requests"], entry["rejected"], result["rejected"]) == (15, 7, 8, 8)
    assert pq.read_table(tmp_path / "out").num_rows == entry["candidates"], "readers of the folder see scores only"


def test_the_first_bad_row_ends_it_and_a_larger_share_goes_on(bundle, requests, tmp_path):
    """With place, reason and how many there are; what was scored is kept, and what is left is no half part."""
    good = lines(tmp_path / "a.jsonl", requests)
    bad = lines(tmp_path / "b.jsonl", [requests[0], BAD["bad type"], requests[1], BAD["bad type"]])
    out = tmp_path / "out"
    with pytest.raises(DataError) as refused:
        scored(bundle, [good, bad], out)
    assert str(refused.value) == (
        f"{bad}: row 2: context.user_id: expected an id, got 'bob'\n"
        f"1 of {len(requests) + 4} rows cannot be scored; --bad-rows 0 allows no more"
    )
    assert sorted(file.name for file in out.iterdir()) == [".multigate.json", "_parts.json", "part-00000.parquet"]
    before = (out / "part-00000.parquet").stat().st_mtime_ns
    with pytest.raises(DataError, match=r"b\.jsonl: row 4: .*\n2 of 29 rows cannot be scored; --bad-rows 0.04 allows"):
        scored(bundle, [good, bad], out, bad_rows=0.04)
    assert scored(bundle, [good, bad], out, bad_rows=0.07)["rejected"] == 2
    assert (out / "part-00000.parquet").stat().st_mtime_ns == before
    assert (out / "_SUCCESS").exists()
    with pytest.raises(DataError, match=r"_quarantine: 2 of 29 rows cannot be scored; --bad-rows 0 allows no more"):
        scored(bundle, [good, bad], out)
    assert not (out / "_SUCCESS").exists(), "a command that fails leaves none"
    assert scored(bundle, [good, bad], out, bad_rows=1.0)["scored"] == 0
    assert (out / "_SUCCESS").exists()


def everything(out):
    """The bytes of every file of a folder."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stopped", ["before a part", "before its name", "before its quarantine", "before success"])
def test_a_killed_run_that_goes_on_ends_with_the_same_bytes(bundle, requests, tmp_path, stopped):
    """Wherever it was killed; nothing of what it left stays."""
    files = [
        lines(tmp_path / f"{name}.jsonl", [*requests[:3], BAD["bad type"], *requests[n : n + 3]])
        for n, name in enumerate("abc")
    ]
    out = tmp_path / "out"
    scored(bundle, files, out, bad_rows=0.5)
    whole = everything(out)
    write_json(out / ".multigate.json", {**read_json(out / ".multigate.json"), "finished": False})
    (out / "_SUCCESS").unlink()
    if stopped != "before success":
        (out / "_manifest.json").unlink()
        (out / "part-00001.parquet").rename(out / ".part-00001.parquet.77.tmp")
    if stopped in ("before a part", "before its quarantine"):
        (out / "_quarantine/part-00001.jsonl").rename(out / ".part-00001.jsonl.77.tmp")
    if stopped == "before a part":
        done = read_json(out / "_parts.json")
        del done["parts"]["part-00001.parquet"]
        write_json(out / "_parts.json", done)
    scored(bundle, files, out, bad_rows=0.5)
    assert everything(out) == whole
    (out / "_quarantine/part-00002.jsonl").write_text("")
    assert 0 < scored(bundle, files, out, bad_rows=0.5)["scored"] < 1000, "a quarantine that changed is a changed part"
    assert everything(out) == whole
    scored(bundle, files, out, bad_rows=0.5, overwrite="always")
    assert everything(out) == whole


def test_a_file_that_changed_is_scored_again_without_its_old_quarantine(bundle, requests, tmp_path):
    """Digests decide, not names."""
    path, out = lines(tmp_path / "r.jsonl", [requests[0], BAD["bad type"]]), tmp_path / "out"
    scored(bundle, [path], out, bad_rows=0.5)
    lines(path, requests[:4])
    assert scored(bundle, [path], out)["rejected"] == 0
    assert not (out / "_quarantine/part-00000.jsonl").exists()


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_scored(bundle, requests, tmp_path):
    """It is no share of rows."""
    pq.write_table(table(requests[:20]), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    good = lines(tmp_path / "b.jsonl", requests)
    with pytest.raises(DataError, match=r"a\.parquet: not a whole \.parquet file: (.|\n)*1 of 2 parts were scored"):
        scored(bundle, [tmp_path / "a.parquet", good], tmp_path / "out", bad_rows=1.0)
    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.parametrize("name", [b"context", b"user_id", b"item_click"])
def test_names_that_are_not_utf_8_are_a_broken_file(bundle, requests, tmp_path, name):
    """At any depth; not a fault of a row, nor of ours."""
    path = tmp_path / "r.arrow"
    feather.write_feather(table(requests[:3]), path, compression="uncompressed")
    path.write_bytes(path.read_bytes().replace(name, b"\xbf" * len(name)))
    with pytest.raises(DataError, match=r"r\.arrow: not a whole \.arrow file: 'utf-8' codec"):
        scored(bundle, [path], tmp_path / "out", bad_rows=1.0)


@pytest.mark.parametrize("seed", range(30))
def test_a_corrupted_table_is_refused_or_read(bundle, requests, tmp_path, seed):
    """Eight bytes anywhere: the file is refused with its name, or its rows are scored or put aside."""
    path, random = tmp_path / ("r.parquet" if seed % 2 else "r.arrow"), np.random.default_rng(seed)
    if seed % 2:
        pq.write_table(table(requests[:20]), path, compression=None)
    else:
        feather.write_feather(table(requests[:20]), path, compression="uncompressed")
    content = bytearray(path.read_bytes())
    place = int(random.integers(8, len(content) - 16))
    content[place : place + 8] = random.bytes(8)
    path.write_bytes(content)
    try:
        scored(bundle, [path], tmp_path / "out", bad_rows=1.0)
    except DataError as refused:
        message = str(refused)
    else:
        message = f"{path.name}: {sum(len(list(forms.requests(part))) for part in forms.sections(path))} rows"
    assert path.name in message


def test_a_timestamp_that_python_has_not_is_a_bad_row(bundle, requests, tmp_path):
    """Arrow's have more years; the rows beside it are scored."""
    whole = table(requests[:3])
    times = pa.array([0, 2**60, 0], pa.int64()).cast(pa.timestamp("us", "UTC"))
    pq.write_table(whole.set_column(1, "time", times), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"row 2: expected timestamps of the years 1 to 9999, got another"):
        scored(bundle, [tmp_path / "r.parquet"], tmp_path / "out")
    assert scored(bundle, [tmp_path / "r.parquet"], tmp_path / "out", bad_rows=0.4)["rejected"] == 1


def test_a_time_is_required_and_a_line_has_a_limit(bundle, requests, tmp_path):
    """Nothing arrives, so nothing else says when; a long line is not held in memory."""
    untimed = {name: value for name, value in requests[0].items() if name != "time"}
    path = lines(tmp_path / "r.jsonl", [untimed, requests[0]])
    path.write_text(f"{path.read_text()}{' ' * (forms.LINE_BYTES + 9)}x\n{json.dumps(requests[1])}\n")
    assert scored(bundle, [path], tmp_path / "out", bad_rows=0.5)["rows"] == 4
    reasons = [
        json.loads(line)["reason"] for line in (tmp_path / "out/_quarantine/part-00000.jsonl").read_text().splitlines()
    ]
    assert reasons == [
        "time: required, but not given: expected a timestamp with a time zone, such as '2026-11-20T08:30:00Z'",
        f"body: expected at most {forms.LINE_BYTES} bytes in a line",
    ]
