"""From logs to DATA: the tables, what is fitted, the manifest, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from features import build
from features.logs import Logs
from rec import encode, fitted, parts
from rec.arrow import schema, to_batch
from rec.errors import DataError, SpecError
from rec.files import read_json, verify
from rec.progress import Silent
from rec.spec import Spec, load
from tests.features import tiny

DAY = 86_400
FIRST = 1_772_323_200  # 2026-03-01
SPEC = tiny.spec(
    context='seen = { kind = "ids", make = "history", last = 3, table = "item" }',
    candidates='n = { kind = "number", make = "rate", per = "item", task = "click" }\n'
    'hour = { kind = "id", make = "hour" }',
)
ROWS = [
    (2, 10, FIRST, 1),
    (2, 11, FIRST + 1, 0),
    (1, 10, FIRST + 60, 0),
    (1, 12, FIRST + DAY, None),
    (3, 10, FIRST + 2 * DAY, 1),
]


def made(folder: Path, spec: Spec = SPEC, rows: list = ROWS) -> dict:
    """The manifest of a build into `folder/data`."""
    return build.build(spec, tiny.logs(rows), folder / "data", progress=Silent())


def table(folder: Path, split: str, spec: Spec = SPEC) -> pa.Table:
    """A split of it, read back."""
    return pa.Table.from_batches(list(parts.read(folder / "data", split, spec)), schema(spec))


def test_the_tables_have_the_schema_and_the_rows_of_the_log(tmp_path):
    """Requests clustered by user, then time; labels null-safe; the past as of each request."""
    made(tmp_path)
    rows = table(tmp_path, "train").to_pylist()
    assert [row["request_id"] for row in rows] == ["1-0", "2-0"]
    assert [c["item"] for c in rows[1]["candidates"]] == [10, 11]
    assert [c["click"] for c in rows[1]["candidates"]] == [1, 0]
    (later,) = table(tmp_path, "validation").to_pylist()
    assert later["candidates"][0]["click"] == -1
    assert later["context"]["seen"] == [10]
    assert rows[0]["candidates"][0]["n"] == pytest.approx((1 + 20 * 2 / 4) / (1 + 20))


def test_the_manifest_counts_and_lists_what_was_written(tmp_path):
    """Requests, candidates, positives, unseen ids, and a digest of every file."""
    manifest = made(tmp_path)
    assert manifest["counts"]["train"] == {
        "requests": 2, "candidates": 3, "users": 2, "items": 2, "observed": {"click": 3}, "positives": {"click": 1},
    }  # fmt: skip
    assert manifest["counts"]["validation"]["observed"] == {"click": 0}
    assert manifest["unseen"]["validation"] == {"user": 0.0, "seen": 0.0, "item": 1.0}
    assert manifest["unseen"]["test"]["user"] == 1.0
    assert read_json(tmp_path / "data" / "manifest.json") == manifest
    verify(tmp_path / "data", manifest["files"])
    assert load(tmp_path / "data" / "spec.toml") == SPEC


def test_vocabularies_and_scales_know_only_train(tmp_path):
    """An item first shown in validation has no row; a column shared by a history has one vocabulary."""
    made(tmp_path)
    learnt = fitted.load(SPEC, tmp_path / "data" / "fitted")
    vocabulary = learnt.encoders["item"]
    assert isinstance(vocabulary, encode.Vocabulary)
    assert sorted(vocabulary.values.to_pylist()) == [10, 11]
    assert learnt.rows(SPEC) == {"user": 3, "item": 3, "hour": 25}
    batch = to_batch(next(parts.read(tmp_path / "data", "train", SPEC)), SPEC, learnt.encoders)
    assert learnt.scales["n"].mean == pytest.approx(batch.candidates["n"].mean())


def test_a_split_without_requests_is_an_empty_file_and_is_said(tmp_path):
    """Training on a log that ends early is possible, and nobody is left to wonder."""
    lines = []
    progress = Silent()
    progress.say = lines.append  # type: ignore[method-assign]
    build.build(SPEC, tiny.logs(ROWS[:3]), tmp_path / "data", progress=progress)
    assert lines == ["validation: no request; see [split] in the spec", "test: no request; see [split] in the spec"]
    assert len(table(tmp_path, "test")) == 0


def test_parts_are_of_bounded_size_and_never_tear_a_request(tmp_path, monkeypatch):
    """Each file holds about PART candidates; read in order they are the same rows."""
    made(tmp_path)
    whole = table(tmp_path, "train")
    monkeypatch.setattr(build, "PART", 1)
    made(tmp_path)
    assert len(parts.files(tmp_path / "data", "train")) == 2
    assert table(tmp_path, "train").equals(whole)


def test_a_failure_leaves_the_old_data(tmp_path):
    """Whole or not at all."""
    manifest = made(tmp_path)
    with pytest.raises(DataError):
        made(tmp_path, rows=ROWS[4:])
    verify(tmp_path / "data", manifest["files"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_label_as_a_feature_is_refused(tmp_path):
    """Always, not only by `check`."""
    with pytest.raises(SpecError, match=r"candidates.clicked: reads 'clicked', .* the model would be given the answer"):
        made(tmp_path, spec=tiny.spec(candidates='clicked = { kind = "number" }'))


def late(window: int) -> tuple[Spec, Logs]:
    """A log that knows when clicks came: 30 s after the impression."""
    spec = tiny.spec(context='r = { kind = "number", make = "rate", per = "user", task = "click" }', window=window)
    moments = pl.Series([FIRST + 30, None]).cast(pl.Int64) * 10**6
    rows = tiny.frame([(1, 10, FIRST, 1), (2, 10, FIRST, 0)])
    return spec, Logs(rows.with_columns(clicked_time=moments.cast(pl.Datetime("us", "UTC"))).lazy())


def test_an_event_later_than_its_window_is_refused(tmp_path):
    """A rate would count it before anybody could have known it."""
    spec, logs = late(window=29)
    with pytest.raises(DataError, match=r"tasks.click.window: 1 of 2: clicked_time is later than .* needs 0:00:30"):
        build.build(spec, logs, tmp_path / "data", progress=Silent())
    spec, logs = late(window=30)
    assert build.build(spec, logs, tmp_path / "data", progress=Silent())["format"] == 1


def test_two_builds_are_the_same_to_the_byte(tmp_path):
    """Same logs, same spec, same files."""
    first = made(tmp_path)["files"]
    assert made(tmp_path)["files"] == first
