"""Native sessions beside those that pauses make: the same, split, merged, and both."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.hashing import CODE
from features.logs.timestamps import TIME
from features.sweep.session_gaps import SessionGaps
from features.transforms import sessions
from rec.spec import parse

SPEC = parse("""
name = "tiny"
keys = { user = "user", item = "item", time = "time", session = "session" }
sessions = { gap = "10s" }
split = { validation = 2026-03-02T00:00:00Z, test = 2026-03-03T00:00:00Z }
[context]
user = { kind = "id" }
[candidates]
item = { kind = "id" }
[tasks]
click = { label = "clicked = 1" }
""")


def counts(rows):
    """How many native sessions of rows (user, second, session) are the same, split, merged, both; and of how many."""
    frame = pl.DataFrame(rows, schema=["user", "second", "session"], orient="row")
    frame = frame.with_columns(
        (pl.col("second") * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(TIME)
    )
    code = sessions.coded(SPEC, frame, np.arange(len(frame)))
    frame, gaps = frame.with_columns(pl.Series(CODE, code)).sort(TIME, maintain_order=True), SessionGaps(SPEC)
    for place in range(len(frame)):  # one by one, as slices come
        gaps.add(frame[place : place + 1])
    actual = gaps.findings()
    return [finding.count for finding in actual], actual[0].total


def test_sessions_as_far_apart_as_they_are_told_are_the_same():
    """Two sessions of one user, twenty seconds apart, and one of another at the same time."""
    assert counts([(1, 0, 7), (1, 5, 7), (1, 25, 8), (2, 5, 9)]) == ([3, 0, 0, 0], 3)


def test_a_pause_inside_splits_a_session():
    """Eleven seconds of nothing within one name."""
    assert counts([(1, 0, 7), (1, 11, 7)]) == ([0, 1, 0, 0], 1)


def test_two_names_without_a_pause_are_merged():
    """Ten seconds are no pause: both sessions are found as one."""
    assert counts([(1, 0, 7), (1, 10, 8)]) == ([0, 0, 2, 0], 2)


def test_a_session_may_be_split_and_merged():
    """The first half of it lies beside another session, the second far from it."""
    assert counts([(1, 0, 7), (1, 5, 8), (1, 30, 8)]) == ([0, 0, 1, 1], 2)


def test_rows_without_a_session_are_left_out():
    """Nobody named their session, so there is nothing to compare."""
    assert counts([(1, 0, None), (1, 3, 7)]) == ([1, 0, 0, 0], 1)
