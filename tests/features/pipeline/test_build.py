"""From logs to DATA: the tables, what is fitted, the manifest, whole or not at all, and the same however it is run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from features.logs.logs import Logs
from features.pipeline import build, replay
from features.pipeline.build import BuildOptions
from rec.atomic import read_json, verify
from rec.data import encoders, preprocessor, splits
from rec.data.session_table import schema, to_batch
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import Spec, load
from tests.features import tiny

HOUR, DAY = 3600, 86_400
FIRST = 1_772_323_200  # 2026-03-01
SERIAL = BuildOptions(engine="serial")
SPEC = tiny.spec(
    context='seen = { kind = "ids", make = "history", last = 3, table = "item" }',
    candidates='n = { kind = "number", make = "rate", per = "item", task = "click" }\n'
    'hour = { kind = "id", make = "hour" }',
)
ROWS = [
    (2, 10, FIRST, 1),
    (2, 11, FIRST + 1, 0),
    (1, 10, FIRST + HOUR, 0),
    (1, 12, FIRST + DAY, None),
    (3, 10, FIRST + 2 * DAY, 1),
]


def manifest_of(folder: Path, spec: Spec = SPEC, rows: list = ROWS, how: BuildOptions = SERIAL) -> dict:
    """The manifest of a build into `folder/data`."""
    return build.build(spec, tiny.logs(rows), folder / "data", progress=Silent(), how=how)


def table(folder: Path, split: str, spec: Spec = SPEC) -> pa.Table:
    """A split of it, read back."""
    return pa.Table.from_batches(list(splits.read(folder / "data", split, spec)), schema(spec))


def test_the_tables_have_the_schema_and_the_rows_of_the_log(tmp_path):
    """Requests in order of time; labels null-safe; the past as of each request."""
    manifest_of(tmp_path)
    rows = {row["request_id"]: row for row in table(tmp_path, "train").to_pylist()}
    assert list(rows) == ["2-0", "1-0"]
    assert [c["item"] for c in rows["2-0"]["candidates"]] == [10, 11]
    assert [c["click"] for c in rows["2-0"]["candidates"]] == [1, 0]
    (later,) = table(tmp_path, "validation").to_pylist()
    assert later["candidates"][0]["click"] == -1
    assert later["context"]["seen"] == [10]
    assert [c["n"] for c in rows["2-0"]["candidates"]] == [None, None]  # nobody was shown anything before
    assert rows["1-0"]["candidates"][0]["n"] == pytest.approx((1 + 20 * 2 / 4) / (1 + 20))
    (last,) = table(tmp_path, "test").to_pylist()
    assert last["candidates"][0]["n"] == pytest.approx((1 + 20 * 2 / 5) / (2 + 20))


def test_the_manifest_counts_and_lists_what_was_written(tmp_path):
    """Requests, candidates, positives, unseen ids, and a digest of every file."""
    manifest = manifest_of(tmp_path)
    assert manifest["counts"]["train"] == {
        "requests": 2, "candidates": 3, "users": 2, "items": 2, "observed": {"click": 3}, "positives": {"click": 1},
    }  # fmt: skip
    assert manifest["counts"]["validation"]["observed"] == {"click": 0}
    assert manifest["unseen"]["validation"]["user"] == 0.0
    assert manifest["unseen"]["validation"]["item"] == manifest["unseen"]["test"]["user"] == 1.0
    assert read_json(tmp_path / "data" / "manifest.json") == json.loads(json.dumps(manifest))
    verify(tmp_path / "data", manifest["files"])
    assert load(tmp_path / "data" / "spec.toml") == SPEC


def test_vocabularies_and_scales_know_only_train(tmp_path):
    """An item first shown in validation has no row; a column shared by a history has one vocabulary."""
    manifest_of(tmp_path)
    learnt = preprocessor.load(SPEC, tmp_path / "data" / "fitted")
    vocabulary = learnt.encoders["item"]
    assert isinstance(vocabulary, encoders.Vocabulary)
    assert sorted(vocabulary.values.to_pylist()) == [10, 11]
    assert learnt.rows(SPEC) == {"user": 3, "item": 3, "hour": 25}
    batch = to_batch(next(splits.read(tmp_path / "data", "train", SPEC)), SPEC, learnt.encoders)
    assert learnt.scales["n"].mean == pytest.approx(np.nanmean(batch.candidates["n"]))


def test_a_split_without_requests_is_an_empty_file_and_is_said(tmp_path):
    """Training on a log that ends early is possible, and nobody is left to wonder."""
    lines = []
    progress = Silent()
    progress.say = lines.append  # type: ignore[method-assign]
    build.build(SPEC, tiny.logs(ROWS[:3]), tmp_path / "data", progress=progress, how=SERIAL)
    assert lines == ["validation: no request; see [split] in the spec", "test: no request; see [split] in the spec"]
    assert len(table(tmp_path, "test")) == 0


def test_parts_are_of_bounded_size_and_never_tear_a_request(tmp_path):
    """Each file holds about so many rows, whole requests; read in order they are the same table."""
    manifest_of(tmp_path)
    whole = table(tmp_path, "train")
    manifest_of(tmp_path, how=BuildOptions(engine="serial", rows=1, overwrite="always"))
    sizes = [
        sum(len(batch) for batch in splits.read_part(file, SPEC)) for file in splits.files(tmp_path / "data", "train")
    ]
    assert max(sizes) == 1
    assert table(tmp_path, "train").equals(whole)


def test_a_failure_leaves_nothing(tmp_path):
    """Whole or not at all: not even the folder."""
    with pytest.raises(DataError, match="no request is in train"):
        manifest_of(tmp_path, rows=ROWS[4:])
    assert list(tmp_path.iterdir()) == []


def test_tables_of_another_spec_are_refused_and_stay(tmp_path):
    """The feature that differs is named; --force makes them again, and what a person put there outlives it."""
    manifest = manifest_of(tmp_path)
    (tmp_path / "data" / "notes.txt").write_text("mine")
    other = tiny.spec(candidates='listed = { kind = "number" }')
    with pytest.raises(FileExistsError, match=r"wrote for spec '\w+' \(of another .*candidates\.listed"):
        manifest_of(tmp_path, spec=other)
    (tmp_path / "data" / "notes.txt").unlink()
    verify(tmp_path / "data", manifest["files"])
    assert manifest_of(tmp_path) == json.loads(json.dumps(manifest))


def test_a_label_as_a_feature_is_refused(tmp_path):
    """Always, not only by `check`."""
    with pytest.raises(SpecError, match=r"candidates.clicked: reads 'clicked', .* the model would be given the answer"):
        manifest_of(tmp_path, spec=tiny.spec(candidates='clicked = { kind = "number" }'))


def test_an_event_later_than_its_window_did_not_happen_in_time(tmp_path):
    """A rate would count it before anybody could have known it; how many there were is found."""
    moments = pl.Series([FIRST + 30, None, FIRST + 90]).cast(pl.Int64) * 10**6
    rows = tiny.frame([(1, 10, FIRST, 1), (2, 10, FIRST, 0), (3, 10, FIRST + 60, 0)])
    logs = Logs.whole(rows.with_columns(clicked_time=moments.cast(pl.Datetime("us", "UTC"))).lazy())
    for window, positives in ((29, 0), (30, 1)):
        spec = tiny.spec(window=window)
        manifest = build.build(spec, logs, tmp_path / str(window), progress=Silent(), how=SERIAL)
        assert manifest["counts"]["train"]["positives"] == {"click": positives}
        late = [
            finding
            for finding in manifest["findings"]
            if finding["text"].startswith("click came after its window of 0:00:")
        ]
        assert [(finding["name"], finding["passed"], finding["count"]) for finding in late] == [
            ("tasks.click.window", True, 1 - positives)
        ]


def test_two_builds_are_the_same_to_the_byte(tmp_path):
    """Same logs, same spec, same files; by threads too, whichever of them ends first."""
    first = manifest_of(tmp_path)["files"]
    assert manifest_of(tmp_path)["files"] == first
    several = manifest_of(tmp_path, how=BuildOptions(engine="threads", workers=2))
    assert several["files"] == first


def test_a_build_that_was_interrupted_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """The outcome is that of a build that was not; until then there is nothing but the work."""
    expected = manifest_of(tmp_path / "unbroken")["files"]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(replay, "assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            manifest_of(tmp_path)
    assert manifest_of(tmp_path)["files"] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "unbroken"]


def test_what_is_left_of_another_build_is_not_used(tmp_path, monkeypatch):
    """Other files of the logs are refused; with `overwrite` the build begins anew."""
    with monkeypatch.context() as patch:
        patch.setattr(replay, "assemble", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            manifest_of(tmp_path)
    changed = [(user, item + 1, second, clicked) for user, item, second, clicked in ROWS]
    with pytest.raises(FileExistsError, match=r"began for spec 'tiny' \(of another files of the logs\)"):
        manifest_of(tmp_path, rows=changed, how=BuildOptions(engine="serial", stamp="the files of today"))
    manifest_of(
        tmp_path, rows=changed, how=BuildOptions(engine="serial", stamp="the files of today", overwrite="always")
    )
    assert {c["item"] for row in table(tmp_path, "train").to_pylist() for c in row["candidates"]} == {11, 12}


def test_a_share_of_the_negatives_is_learnt_from(tmp_path):
    """About so many; every event stays, and so does all that validates; what is counted of the past is not thinned."""
    count = 'n = { kind = "number", make = "count", per = "item", task = "click" }'
    rate = 'r = { kind = "number", make = "rate", per = "item", task = "click" }'
    spec = tiny.spec(candidates=f"{count}\n{rate}", gap=0)
    rows = [(user, user % 7, FIRST + DAY * (user % 2) + user, int(user % 9 == 0)) for user in range(4000)]
    whole = manifest_of(tmp_path, spec, rows)
    before = {split: table(tmp_path, split, spec) for split in ("train", "validation")}
    task = spec.tasks["click"].model_copy(update={"negatives": 0.25})
    sampled = spec.model_copy(update={"tasks": {"click": task}})
    manifest = manifest_of(tmp_path, sampled, rows, replace(SERIAL, overwrite="always"))
    positives = whole["counts"]["train"]["positives"]["click"]
    assert manifest["counts"]["train"]["positives"]["click"] == positives
    left = manifest["counts"]["train"]["observed"]["click"] - positives
    assert abs(left - 0.25 * (2000 - positives)) < 4 * (0.25 * 0.75 * 2000) ** 0.5
    assert table(tmp_path, "validation", sampled).equals(before["validation"])
    thinned, full = table(tmp_path, "train", sampled).to_pylist(), before["train"].to_pylist()
    assert [{**row["candidates"][0], "click": None} for row in thinned] == [
        {**row["candidates"][0], "click": None} for row in full
    ]
