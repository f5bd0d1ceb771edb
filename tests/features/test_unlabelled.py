"""Rows without labels, such as tomorrow's requests: session tables are made of them, and scored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import sources
from features.pipeline import build
from pipelines.cli import commands
from rec.data import splits
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import parse

START = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = """
name = "tomorrow"
[source]
kind = "impressions"
files = FILES
[keys]
user = "user"
item = "item"
time = "time"
[split]
validation = 2026-03-04T00:00:00Z
test = 2026-03-05T00:00:00Z
[context]
user = { kind = "id", dim = 4 }
seen = { kind = "ids", make = "history", task = "click", last = 3 }
[candidates]
item = { kind = "id", dim = 4 }
price = { kind = "number" }
[tasks]
click = { label = "clicked", window = "10m" }
buy = { label = "clicked AND bought_at IS NOT NULL", time = "bought_at", given = "click", window = "10m" }
stay = { label = "CASE WHEN clicked THEN dwell END", given = "click", predict = "log", window = "10m" }
[events]
save = { label = "saved" }
[model]
name = "shared_bottom"
bottom_widths = [8]
tower_widths = [4]
[train]
batch = 512
epochs = 1
device = "cpu"
"""
LABELS = ["clicked", "bought_at", "dwell", "saved"]


def log(first: int, last: int, *, seed: int) -> pl.DataFrame:
    """Impressions of some days, three an hour, with what came of them."""
    rng = np.random.default_rng(seed)
    rows = 72 * (last - first)
    clicked = rng.random(rows) < 0.5
    time = [START + timedelta(days=first, minutes=20 * row) for row in range(rows)]
    bought = pl.Series([moment + timedelta(minutes=1) for moment in time]).set(pl.Series(~clicked), None)
    return pl.DataFrame(
        {
            "user": rng.integers(1, 9, rows), "item": rng.integers(1, 12, rows), "time": time,
            "price": rng.random(rows), "clicked": clicked.astype(int), "bought_at": bought, "dwell": rng.random(rows),
            "saved": rng.integers(0, 2, rows),
        }
    )  # fmt: skip


def built(folder: Path, *files: str, spec: str = SPEC) -> dict:
    """The manifest of session tables of files."""
    text = spec.replace("FILES", str(list(files)).replace("'", '"'))
    (folder / "spec.toml").write_text(text)
    made = parse(text)
    how = build.BuildOptions(engine="serial")
    return build.build(made, sources.read(made, folder), folder / "data", progress=Silent(), how=how)


def labels(folder: Path, split: str) -> list[dict]:
    """The labels of a split's candidates, with the time of their request."""
    spec = parse((folder / "spec.toml").read_text())
    rows = [row for part in splits.read(folder / "data", split, spec) for row in part.to_pylist()]
    return [{"time": row["time"], **{t: c[t] for t in spec.tasks}} for row in rows for c in row["candidates"]]


@pytest.mark.parametrize("how", ["absent", "null", "csv"])
def test_rows_to_be_scored_have_no_labels(how, tmp_path):
    """Columns of labels that are not there, or hold nothing: every label is not observed, and no request trains."""
    new = log(6, 8, seed=1)
    if how == "null":
        new.with_columns(pl.lit(None, new.schema[column]).alias(column) for column in LABELS).write_parquet(
            tmp_path / "new.parquet"
        )
    elif how == "csv":
        new.drop(LABELS).write_csv(tmp_path / "new.csv")
    else:
        new.drop(LABELS).write_parquet(tmp_path / "new.parquet")
    manifest = built(tmp_path, "new.csv" if how == "csv" else "new.parquet")
    assert manifest["counts"]["train"]["requests"] == 0
    rows = labels(tmp_path, "test")
    assert len(rows) == 144
    assert {(row["click"], row["stay"]) for row in rows} == {(-1, None)}
    if how != "null":  # a moment that is nothing says that it did not happen
        assert {row["buy"] for row in rows} == {-1}


def test_rows_to_be_scored_may_follow_the_log(tmp_path):
    """A file with labels, and one without: what is learnt from is as it was without the second."""
    log(0, 6, seed=0).write_parquet(tmp_path / "log.parquet")
    log(6, 8, seed=1).drop(LABELS).write_parquet(tmp_path / "new.parquet")
    (tmp_path / "alone").mkdir()
    log(0, 6, seed=0).write_parquet(tmp_path / "alone" / "log.parquet")
    manifest = built(tmp_path, "log.parquet", "new.parquet")
    built(tmp_path / "alone", "log.parquet")
    assert labels(tmp_path, "train") == labels(tmp_path / "alone", "train")
    new = [row for row in labels(tmp_path, "test") if row["time"] >= START + timedelta(days=6)]
    assert {(row["click"], row["buy"], row["stay"]) for row in new} == {(-1, -1, None)}
    (warned,) = [finding for finding in manifest["findings"] if "files without columns of labels" in finding["text"]]
    assert (warned["level"], warned["count"], warned["examples"]) == ("warn", 1, ("new.parquet",))


def test_a_file_that_lacks_one_labels_column_lacks_that_label(tmp_path):
    """`bought_at` is not there: nobody knows who bought, though a column of nulls would say that nobody did."""
    log(0, 6, seed=0).write_parquet(tmp_path / "log.parquet")
    log(6, 8, seed=1).drop("bought_at").write_parquet(tmp_path / "new.parquet")
    built(tmp_path, "log.parquet", "new.parquet")
    new = [row for row in labels(tmp_path, "test") if row["time"] >= START + timedelta(days=6)]
    assert {row["buy"] for row in new} == {-1}
    assert {row["click"] for row in new[:-3]} == {0, 1}


def test_a_label_that_no_log_to_train_on_has_is_refused(tmp_path):
    """A word that is written wrong is not a log without labels: there are requests to train on."""
    log(0, 6, seed=0).write_parquet(tmp_path / "log.parquet")
    wrong = SPEC.replace('label = "clicked"', 'label = "clickd"')
    with pytest.raises(SpecError, match=r"tasks.click.label: no column 'clickd' in the logs; did you mean 'clicked'"):
        built(tmp_path, "log.parquet", spec=wrong)
    log(0, 6, seed=0).drop(LABELS).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(SpecError, match="rows without labels can be scored, and none of them may be in train"):
        built(tmp_path, "log.parquet")


def test_tomorrows_requests_are_scored_by_todays_model(tmp_path):
    """From the training log to a bundle, and from a file without labels to its scores, whole and alone."""
    log(0, 6, seed=0).write_parquet(tmp_path / "log.parquet")
    built(tmp_path, "log.parquet")
    commands.train(tmp_path / "spec.toml", [], tmp_path / "data", tmp_path / "run", Silent())
    commands.export(tmp_path / "run", tmp_path / "data", tmp_path / "bundle", Silent())
    tomorrow = tmp_path / "tomorrow"
    tomorrow.mkdir()
    new = log(6, 8, seed=1).drop(LABELS)
    new.write_parquet(tomorrow / "new.parquet")
    built(tomorrow, "new.parquet")
    commands.score(tmp_path / "bundle", tomorrow / "data", tomorrow / "scores", Silent())
    scores = pl.read_parquet(tomorrow / "scores" / "*.parquet")
    assert sorted(scores["candidates.item"]) == sorted(new["item"])
    assert scores["score"].is_finite().all()


def test_requests_with_lists_need_no_lists_of_events_to_be_scored(tmp_path):
    """One row per request: what was shown, and nothing of what happened."""
    spec = SPEC.replace('kind = "impressions"', 'kind = "requests"\nshown = "shown"')
    spec = spec.replace('"time"\n', '"time"\nrequest = "id"\n').replace('price = { kind = "number" }\n', "")
    spec = spec.replace("[split]", '[source.events.clicked]\nitems = "clicks"\n[split]')
    spec = spec[: spec.index("buy =")] + spec[spec.index("[model]") :]
    rows = {"id": [1, 2], "user": [1, 2], "time": [START + timedelta(days=6)] * 2, "shown": [[1, 2], [3]]}
    pl.DataFrame(rows).write_parquet(tmp_path / "new.parquet")
    built(tmp_path, "new.parquet", spec=spec)
    assert [row["click"] for row in labels(tmp_path, "test")] == [-1, -1, -1]
