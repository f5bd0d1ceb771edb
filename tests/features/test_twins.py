"""The pipeline against its slow twin, on drawn logs and specs: every row the same, and every byte however it is run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.logs.logs import Logs
from features.pipeline import build
from features.pipeline.build import BuildOptions
from features.transforms import base_rates, counters, joins, labels
from rec.data import splits
from rec.data.splits import SPLITS
from rec.progress import Silent
from rec.spec import Spec
from tests.features import drawn
from tests.reference.logs import EPOCH, us

quietly = {"deadline": None, "suppress_health_check": list(HealthCheck)}


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
def test_users_are_clustered_and_their_requests_in_order(log):
    """Within a split, across its parts."""
    with tempfile.TemporaryDirectory() as folder:
        tables = built(log.spec, log.logs(), Path(folder), rows=4)
    for rows in tables.values():
        users = [row["context"]["user"] for row in rows if row["context"]["user"] is not None]
        assert sum(a != b for a, b in pairwise(users)) == max(0, len(set(users)) - 1)
        for user in set(users):
            times = [row["time"] for row in rows if row["context"]["user"] == user]
            assert times == sorted(times)
        assert len({row["request_id"] for row in rows}) == len(rows)


@pytest.mark.slow
@settings(**quietly, max_examples=30)
@given(drawn.logs(sampled=True), st.sampled_from([2, 3, 7]))
def test_every_byte_is_the_same_in_however_many_partitions(log, partitions):
    """Tables, what is fitted, the store and the manifest; also where negatives are sampled."""
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for count in (1, partitions):
            folder = Path(name) / str(count)
            built(log.spec, log.logs(pieces=3), folder, partitions=count, rows=8)
            folders.append(
                {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
            )
    assert folders[0] == folders[1]


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


def later(name: str, argument: int, by: int):
    """A plant: a function of the pipeline that is given a later moment (or a longer window) than it was asked for."""
    owner, _, method = name.rpartition(".")
    place = {
        "EventIndex": counters.EventIndex,
        "SideTable": joins.SideTable,
        "BaseRates": base_rates.BaseRates,
        "labels": labels,
    }[owner]
    honest = getattr(place, method)

    def leaky(*given):
        moved = [value + by if index == argument and value is not None else value for index, value in enumerate(given)]
        return honest(*moved)

    return place, method, leaky


@pytest.mark.parametrize(
    ("name", "argument", "by", "only"),
    [
        # what becomes known at the timestamp of the request is seen
        ("EventIndex.between", 2, 1, ("seen", "user_n", "item_n")),
        # a window begins a microsecond early
        pytest.param("EventIndex.between", 3, 1, ("item_m", "sort_n"), marks=pytest.mark.slow),
        # the base rate is of the request's own hour too
        ("BaseRates.base", 1, base_rates.HOUR, ("item_r", "user_r")),
        # what holds from the timestamp of the request on is seen
        ("SideTable.joined", 3, 1, ("age", "home", "price", "category")),
        # a window that closes a microsecond after the end is taken for closed
        pytest.param("labels.settled", 3, 1, ("place",), marks=pytest.mark.slow),
    ],
)
def test_a_planted_leak_is_caught(name, argument, by, only, monkeypatch):
    """Of one microsecond, wherever a timestamp is compared: some drawn log has a tie there."""
    monkeypatch.setattr(*later(name, argument, by))
    soon = settings(**quietly, max_examples=200, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises(AssertionError):
        soon(given(drawn.logs(only=only))(checked))()
