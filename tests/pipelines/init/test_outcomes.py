"""Columns of outcomes are tasks, or left out, or asked about; never features by themselves."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import numpy as np
import polars as pl

from rec.spec import load
from tests.pipelines.init.test_init import left, runs, shop, started


def flagged() -> pl.DataFrame:
    """A log with columns of 0 and 1 beside the label: an outcome, one that is known before, an attribute of users."""
    rng = np.random.default_rng(9)
    rows = shop(3000).drop("bought", "dwell", "like", "")
    comment = (rows["is_click"] == 1).to_numpy() & (rng.random(3000) < 0.6)
    return rows.with_columns(
        opened=pl.Series(comment).cast(pl.Int64), reaction_ms=pl.Series(comment * rng.integers(1, 900, 3000)),
        weekend=pl.Series(rng.random(3000) < 0.3), premium=(pl.col("uid") % 3 == 0).cast(pl.Int64),
    )  # fmt: skip


def test_columns_that_look_like_outcomes_are_left_out(tmp_path, capsys):
    """By what they say of the label, or as 0 and 1 beside it; said in the notes, and in the spec as comments."""
    flagged().write_parquet(tmp_path / "log.parquet")
    spec, text, notes = started(tmp_path)
    features = {*spec.context, *spec.candidates}
    assert not {"opened", "reaction_ms", "weekend"} & features
    assert "premium" in features
    tells = "left out: tells is_click, so it is likely known only after the impression"
    assert (notes["look at"]["opened"], notes["look at"]["reaction_ms"]) == (tells, tells)
    assert notes["look at"]["weekend"] == "left out: 0 or 1 beside the label, so it may be an outcome"
    (line,) = [line for line in text.splitlines() if line.startswith("# weekend = ")]
    assert line.endswith("# left out: 0 or 1 beside the label, so it may be an outcome")
    runs(tmp_path, capsys)


def test_words_that_tell_the_outcome_are_left_out(tmp_path, capsys):
    """An outcome written as text, of two words or several; a word that is known before stays."""
    log = flagged().drop("opened", "reaction_ms", "weekend")
    clicked = (log["is_click"] == 1).to_numpy()
    rng = np.random.default_rng(4)
    log.with_columns(
        state=pl.Series(np.where(clicked & (rng.random(3000) < 0.9), "answered", "ignored")),
        gesture=pl.Series(np.where(clicked, np.where(rng.random(3000) < 0.5, "tap", "hold"), "none")),
        place=pl.Series(np.where(rng.random(3000) < 0.2 + 0.3 * clicked, "top", "side")),
    ).write_parquet(tmp_path / "log.parquet")
    spec, _, notes = started(tmp_path)
    tells = "left out: tells is_click, so it is likely known only after the impression"
    assert (notes["look at"]["state"], notes["look at"]["gesture"]) == (tells, tells)
    assert "place" in {*spec.context, *spec.candidates}
    runs(tmp_path, capsys)


def test_an_outcome_among_the_features_of_a_draft_fails_check(tmp_path, capsys):
    """If a person says that it was known before, and it was not."""
    flagged().write_parquet(tmp_path / "log.parquet")
    spec, _, notes = started(tmp_path, known=lambda column, why: column in ("opened", "weekend"))
    assert {"opened", "weekend"} <= {*spec.context, *spec.candidates}
    assert "weekend" not in notes["look at"]
    assert left("check", tmp_path / "mine.toml") == 3
    assert "candidates.opened: click happened in" in capsys.readouterr().out


def test_several_labels_are_several_tasks(tmp_path, capsys):
    """And no others; one that implies another is its child."""
    shop(3000).write_parquet(tmp_path / "log.parquet")
    out = tmp_path / "mine.toml"
    assert left("init", tmp_path, "--out", out, "--label", "bought", "--label", "is_click") == 0
    tasks = load(out).tasks
    assert {name: (task.label, task.given) for name, task in tasks.items()} == {
        "click": ("is_click = 1", None),
        "bought": ("is_click = 1 AND bought", "click"),
    }
    assert left("init", tmp_path, "--out", out, "--label", "is_click", "--force") == 0
    assert list(load(out).tasks) == ["click"]
    assert not {"bought", "like"} & {*load(out).context, *load(out).candidates}
    assert "# bought" in out.read_text()
    assert "left out: looks like an outcome, known only afterwards" in capsys.readouterr().out


def test_a_label_that_is_not_0_and_1_is_refused(tmp_path, capsys):
    """In words, with what the column holds."""
    flagged().with_columns(mood=pl.lit("good")).write_parquet(tmp_path / "log.parquet")
    assert left("init", tmp_path, "--out", tmp_path / "mine.toml", "--label", "mood") == 3
    assert "--label mood: expected a column of 0 and 1, or of false and true, got 'good'" in capsys.readouterr().err


def test_on_a_terminal_it_asks_what_was_known_before(tmp_path):
    """A real one: yes for the weekend, no for what tells the label."""
    flagged().drop("reaction_ms").write_parquet(tmp_path / "log.parquet")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipelines.cli", "init", str(tmp_path), "--out", str(tmp_path / "mine.toml")]
    with subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        os.write(ours, b"n\ny\n")  # in the order of the columns: opened, weekend
        assert process.wait(60) == 0
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "opened: tells is_click, so it is likely known only after the impression." in shown
    assert "Was it known before the impression? [y/N]:" in shown
    features = {*load(tmp_path / "mine.toml").context, *load(tmp_path / "mine.toml").candidates}
    assert "weekend" in features
    assert "opened" not in features
