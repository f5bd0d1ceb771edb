"""The pipeline against its slow twin, on drawn logs and specs: every row the same, and every byte however it is run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from features import build, counts
from features.build import How
from features.logs import Logs
from rec import parts
from rec.parts import SPLITS
from rec.progress import Silent
from rec.spec import Spec
from tests.features import drawn
from tests.reference.logs import EPOCH, us

# a drawn log is slow to build, and nothing is learnt from making it smaller before it fails
quietly = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def built(spec: Spec, logs: Logs, folder: Path, **how) -> dict[str, list[dict]]:
    """The session tables of a build, as the twin has them."""
    build.build(spec, logs, folder / "data", progress=Silent(), how=How(engine="serial", **how))
    return {split: list(plain(spec, folder / "data", split)) for split in SPLITS}


def plain(spec: Spec, data: Path, split: str) -> Iterator[dict]:
    """Rows as Python objects, moments in microseconds."""
    for batch in parts.read(data, split, spec):
        yield from (counted(row) for row in batch.to_pylist())


def counted(value):
    """A value with all moments in it as microseconds."""
    if isinstance(value, dict):
        return {name: counted(one) for name, one in value.items()}
    if isinstance(value, list):
        return [counted(one) for one in value]
    return us(value - EPOCH) if isinstance(value, datetime) else value


def comparable(rows: list[dict]) -> list[str]:
    """Rows in one order; requests of nobody are called by whoever made them as he likes."""
    unnamed = [{**row, "request_id": None} if row["context"]["user"] is None else row for row in rows]
    return sorted(json.dumps(row, sort_keys=True) for row in unnamed)


def same(made: dict[str, list[dict]], expected: dict[str, list[dict]]) -> None:
    """Assert that two session tables are equal, row by row."""
    for split in SPLITS:
        assert comparable(made[split]) == comparable(expected[split])


@quietly
@given(drawn.logs())
def test_every_row_is_the_twins(one):
    """Whatever features, windows and lags, ties, repeats and gaps: the session tables are those that loops make."""
    with tempfile.TemporaryDirectory() as folder:
        same(built(one.spec, one.logs(), Path(folder)), one.twin())


@quietly
@given(drawn.logs())
def test_users_are_clustered_and_their_requests_in_order(one):
    """Within a split, across its parts."""
    with tempfile.TemporaryDirectory() as folder:
        made = built(one.spec, one.logs(), Path(folder), rows=4)
    for rows in made.values():
        known = [row for row in rows if row["context"]["user"] is not None]
        users = [row["context"]["user"] for row in known]
        assert sum(a != b for a, b in pairwise(users)) == max(0, len(set(users)) - 1)
        for user in set(users):
            times = [row["time"] for row in known if row["context"]["user"] == user]
            assert times == sorted(times)
        assert len({row["request_id"] for row in rows}) == len(rows)


def contents(data: Path) -> dict[str, bytes]:
    """Every file of DATA but the manifest, which is compared by itself."""
    return {str(file.relative_to(data)): file.read_bytes() for file in data.rglob("*") if file.is_file()}


@quietly
@given(drawn.logs(sampled=True))
def test_every_byte_is_the_same_in_however_many_partitions(one):
    """One, three or seven, of logs in one piece or in three; also where negatives are sampled."""
    with tempfile.TemporaryDirectory() as name:
        made = []
        for number, (partitions, pieces) in enumerate([(1, 1), (3, 1), (7, 3)]):
            folder = Path(name) / str(number)
            built(one.spec, one.logs(pieces=pieces), folder, partitions=partitions, rows=8)
            made.append(contents(folder / "data"))
    assert made[0] == made[1]
    assert made[0] == made[2]


@quietly
@given(drawn.logs(sampled=True))
def test_sampling_negatives_hides_labels_and_nothing_else(one):
    """In training a 0 may become unobserved; every other label and every feature is as without it."""
    expected = one.twin()
    with tempfile.TemporaryDirectory() as folder:
        made = built(one.spec, one.logs(), Path(folder))
    for row in made["train"]:
        (twin,) = [r for r in expected["train"] if r["request_id"] == row["request_id"]] or [None]
        for place, candidate in enumerate(row["candidates"] if twin else []):
            if candidate["click"] == -1 and twin["candidates"][place]["click"] == 0:
                candidate["click"] = 0
    same(made, expected)


@pytest.mark.parametrize("leak", ["lag", "window"])
def test_a_planted_leak_of_one_microsecond_is_caught(leak, monkeypatch):
    """With a count that sees what became known at its own moment, or a window that begins a microsecond early."""
    honest = counts.Past.between

    def leaky(self, places, before, window):
        if leak == "lag":
            return honest(self, places, before + 1, None if window is None else window + 1)
        return honest(self, places, before, None if window is None else window + 1)

    monkeypatch.setattr(counts.Past, "between", leaky)
    with pytest.raises(AssertionError):
        test_every_row_is_the_twins()
