"""The pipeline against its slow twin, on drawn logs and specs: every row the same, and every byte however it is run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.logs.logs import Logs
from features.pipeline import build, time_order
from features.pipeline.build import BuildOptions
from features.sweep.as_of_rows import AsOfRows
from features.sweep.histories import Histories
from features.sweep.key_group import KeyGroup
from features.sweep.running_base import HOUR, RunningBase
from features.transforms import labels
from rec.data import splits
from rec.data.splits import SPLITS
from rec.progress import Silent
from rec.spec import Spec
from tests.features import drawn
from tests.reference.logs import EPOCH, us

quietly = {"deadline": None, "suppress_health_check": list(HealthCheck)}
# to find one fault, and no more
hastily = {"phases": [Phase.generate], "database": None, "derandomize": True, "report_multiple_bugs": False}


def built(spec: Spec, logs: Logs, folder: Path, **how) -> dict[str, list[dict]]:
    """The session tables of a build, as the twin has them."""
    build.build(
        spec, logs, folder / "data", progress=Silent(), how=BuildOptions(engine="serial", refusing=False, **how)
    )
    return {split: list(plain(spec, folder / "data", split)) for split in SPLITS}


def plain(spec: Spec, data: Path, split: str) -> Iterator[dict]:
    """Rows as Python objects, moments in microseconds."""
    for batch in splits.read(data, split, spec):
        yield from (counted(row) for row in batch.to_pylist())


def counted(value):
    """A value with all moments in it as microseconds."""
    if isinstance(value, dict):
        return {name: counted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [counted(item) for item in value]
    return us(value - EPOCH) if isinstance(value, datetime) else value


def comparable(rows: list[dict]) -> list[str]:
    """Rows in one order; requests of nobody that the logs do not name are called by whoever makes them as he likes."""
    return sorted(json.dumps({**row, "request_id": name(row)}, sort_keys=True) for row in rows)


def name(row: dict) -> str | None:
    """The id of a request, if it is of somebody, or the logs have one."""
    return row["request_id"] if row["context"].get("user") is not None or "/" in str(row["request_id"]) else None


def same(actual: dict[str, list[dict]], expected: dict[str, list[dict]]) -> None:
    """Assert that two session tables are equal, row by row."""
    for split in SPLITS:
        assert comparable(actual[split]) == comparable(expected[split])


def checked(log: drawn.Drawn) -> None:
    """Assert that what is built of drawn logs is what the twin says."""
    with tempfile.TemporaryDirectory() as folder:
        same(built(log.spec, log.logs(), Path(folder), rows=8), log.twin())


@settings(**quietly, max_examples=30)
@given(drawn.logs())
def test_every_row_is_the_twins(log):
    """Whatever features, windows and lags, ties, repeats and gaps: the session tables are those that loops make."""
    checked(log)


@settings(**quietly, max_examples=20)
@given(drawn.logs(users=False))
def test_every_row_is_the_twins_where_nobody_is_named(log):
    """Logs without users, with request ids or without."""
    checked(log)


@settings(**quietly, max_examples=15)
@given(drawn.logs())
def test_requests_come_in_order_of_time(one):
    """Within a split, across its parts, each once."""
    with tempfile.TemporaryDirectory() as folder:
        made = built(one.spec, one.logs(), Path(folder), rows=4)
    for rows in made.values():
        times = [row["time"] for row in rows]
        assert times == sorted(times)
        assert len({row["request_id"] for row in rows}) == len(rows)


@pytest.mark.slow
@settings(**quietly, max_examples=30)
@given(drawn.logs(sampled=True), st.sampled_from([0, 3, 1000]))
def test_every_byte_is_the_same_however_the_log_is_sorted(one, held):
    """In memory or by runs on disk: tables, what is fitted, the store and the manifest; also with sampled negatives."""
    with tempfile.TemporaryDirectory() as name:
        made = []
        for count in (10**6, held):
            folder = Path(name) / str(count)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(time_order, "HELD", count / 8)
                built(one.spec, one.logs(pieces=3), folder, rows=8)
            made.append({file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()})
    assert made[0] == made[1]


@settings(**quietly, max_examples=15)
@given(drawn.logs(sampled=True))
def test_sampling_negatives_hides_labels_and_nothing_else(log):
    """In training a 0 may become unobserved; every feature, and every label elsewhere, is as without it."""
    expected = log.twin()
    with tempfile.TemporaryDirectory() as folder:
        tables = built(log.spec, log.logs(), Path(folder))
    clicks = [[c for row in rows["train"] for c in row["candidates"]] for rows in (tables, expected)]
    hidden = [sum(candidate["click"] == -1 for candidate in candidates) for candidates in clicks]
    assert hidden[0] >= hidden[1]
    for candidate in clicks[0] + clicks[1]:
        candidate["click"] = max(0, candidate["click"])
    same(tables, expected)


def later(name: str, argument: int | str, by: int):
    """A plant: a function of the pipeline that is given a later moment than it was asked for."""
    owner, _, method = name.rpartition(".")
    place = {
        "KeyGroup": KeyGroup,
        "Histories": Histories,
        "AsOfRows": AsOfRows,
        "RunningBase": RunningBase,
        "labels": labels,
    }[owner]
    honest = getattr(place, method)

    def leaky(*given, **named):
        moved = [one + by if index == argument and one is not None else one for index, one in enumerate(given)]
        return honest(*moved, **{name: one + by if name == argument else one for name, one in named.items()})

    return place, method, leaky


def short(honest):
    """A plant: windows are a microsecond shorter than they should be."""

    def steps(group, own):
        return [replace(step, delay=step.delay - (step.sign < 0)) for step in honest(group, own)]

    return steps


@pytest.mark.parametrize(
    ("name", "argument", "by", "only"),
    [
        # what becomes known at the timestamp of the request is seen
        ("KeyGroup.ask", "time", 1, ("user_n", "item_n")),
        ("Histories.ask", "time", 1, ("seen",)),
        # the base rate is of the request's own hour too
        ("RunningBase.ask", "time", HOUR, ("item_r", "user_r")),
        ("KeyGroup.ask", "time", 1, ("item_x", "page_x", "user_x")),
        ("RunningBase.ask", "time", HOUR, ("item_y", "where_x")),
        # what holds from the timestamp of the request on is seen
        ("AsOfRows.held", 1, 1, ("age", "home", "price", "category")),
        # a window that closes a microsecond after the end is taken for closed
        pytest.param("labels.settled", 3, 1, ("place",), marks=pytest.mark.slow),
    ],
)
def test_a_planted_leak_is_caught(name, argument, by, only, monkeypatch):
    """Of one microsecond, wherever a timestamp is compared: some drawn log has a tie there."""
    monkeypatch.setattr(*later(name, argument, by))
    soon = settings(**quietly, **hastily, max_examples=200)
    with pytest.raises(AssertionError):
        soon(given(drawn.logs(only=only))(checked))()


@pytest.mark.slow
def test_a_window_that_is_too_short_is_caught(monkeypatch):
    """Of one microsecond, too."""
    monkeypatch.setattr(KeyGroup, "_steps", short(KeyGroup._steps))
    soon = settings(**quietly, **hastily, max_examples=200)
    with pytest.raises(AssertionError):
        soon(given(drawn.logs(only=("item_m", "sort_n")))(checked))()
