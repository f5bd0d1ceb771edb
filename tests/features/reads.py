"""Logs read to the end, as the tests of sources and of reading want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from features import sources
from features.logs import reader
from features.logs.logs import Finding, Logs, Piece, columns_in
from features.pipeline import build
from features.transforms import attribution
from rec.data import splits
from rec.progress import Silent
from rec.spec import Spec, load
from tests import ROOT

SPECS = ROOT / "specs"
START = datetime(2026, 3, 2, tzinfo=UTC)
LATER = "logs.end=2026-04-01T00:00:00Z"  # long after every window has closed


@dataclass(frozen=True)
class Whole:
    """The rows of a log below each other, what could not be used, and what was found."""

    rows: pl.DataFrame
    bad: reader.BadRows
    kinds: dict[str, pl.DataType]
    findings: tuple[Finding, ...]


def whole(
    spec: Spec, pieces: Sequence[Piece], where: str = "impressions", *, columns: Sequence[str] = (), **more
) -> Whole:
    """Every batch of every piece; of all columns, unless some are named."""
    latest = more.pop("latest", None)
    plan = reader.plan(spec, pieces, columns or list(columns_in(pieces)), where, **more)
    blocks = [block for place in range(len(plan.pieces)) for block in reader.batches(plan, place, spec, latest=latest)]
    bad = reader.merge([bad_rows for _, bad_rows in blocks])
    return Whole(pl.concat([rows for rows, _ in blocks]), bad, dict(plan.kinds), plan.findings)


def attributed(spec: Spec, logs: Logs) -> tuple[pl.DataFrame, list[Finding]]:
    """The impressions of a log with what came of them, and what was found of its events."""
    shown = whole(spec, logs.impressions)
    events = {}
    for name, log in logs.happened.items():
        kinds = {key: kind for key, kind in shown.kinds.items() if key in columns_in(log.pieces)}
        events[name] = whole(spec, log.pieces, f"source.events.{name}", kinds=kinds).rows
    rows, findings = attribution.attribute(spec, shown.rows, events, logs.happened)
    return rows, attribution.checked(findings, logs.happened)


def at(day: int, minute: int) -> datetime:
    """A timestamp of the log."""
    return START + timedelta(days=day, minutes=minute)


def save(folder: Path, name: str, columns: dict) -> None:
    """A table as a file below `logs/`, of the form its name says."""
    path = folder / "logs" / name
    path.parent.mkdir(exist_ok=True)
    rows = pl.DataFrame(columns)
    writers = {".parquet": rows.write_parquet, ".csv": rows.write_csv, ".arrow": rows.write_ipc}
    writers[path.suffix](path)


def read(name: str, folder: Path, *overrides: str) -> tuple[Spec, Logs]:
    """A spec that ships, with the files of a folder."""
    spec = load(SPECS / f"{name}.toml", list(overrides))
    return spec, sources.read(spec, folder)


def candidates(spec: Spec, logs: Logs, folder: Path) -> list[dict]:
    """All candidates of all splits, with the split's name, through the whole of `build`."""
    build.build(spec, logs, folder / "data", progress=Silent())
    groups = []
    for split in splits.SPLITS:
        for rows in splits.read(folder / "data", split, spec):
            groups += [{"split": split, **row["context"], **c} for row in rows.to_pylist() for c in row["candidates"]]
    return groups
