"""The end of a build: statistics of all parts merged, the files moved into DATA, its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from features import checks
from features.checks import data_card
from features.logs.logs import Finding
from features.pipeline import assemble, snapshot
from features.pipeline.assemble import statistics_path
from features.pipeline.job import BuildJob
from features.pipeline.replay import ReplayedLog
from features.pipeline.time_order import Seen
from features.transforms import sample_weights, split
from rec.atomic import inventory, write_bytes, write_json
from rec.data import preprocessor, statistics
from rec.data.encoders import Encoder, Vocabulary
from rec.data.splits import SPLITS
from rec.data.statistics import Statistics
from rec.spec import dump
from rec.spec.tasks import weighted

FORMAT = 3


def finish(job: BuildJob, folder: Path, replay: ReplayedLog, seen: Seen, findings: Sequence[Finding]) -> dict[str, Any]:
    """Fill DATA's folder from what a replay left; its manifest. DataError if the training split is empty."""
    just_after = (seen.last or 0) + 1
    finals = replay.finals(just_after)
    files = [*replay.files, *(assemble.nothing(job, name) for name in SPLITS if not _of(replay.files, name))]
    counts = {name: _counts(job, name, _of(files, name), replay) for name in SPLITS}
    if any(count for name in SPLITS for count in counts[name]["positives"].values()):  # else they are to be scored
        split.refuse_none(job.spec, counts["train"]["requests"], seen.first, seen.last)
    for name in SPLITS:
        _share(job.work / "data" / name, folder / name)
    learnt = {name: _statistics(job, name, _of(files, name)) for name in SPLITS}
    fitted = preprocessor.from_statistics(job.spec, learnt["train"])
    fitted.save(folder / "fitted")
    if replay.state is not None:
        replay.state.write(replay.past, replay.latest, folder / "state")
    snapshot.write(job, finals, just_after, folder / "store")
    write_bytes(folder / "spec.toml", dump(job.spec).encode())
    unseen = {name: _unseen(learnt[name], fitted.encoders) for name in SPLITS[1:]}
    report = checks.of_tables(job.spec, folder, unseen=unseen, counts=counts)
    described = data_card.make(job.spec.name, counts=counts, unseen=unseen, report=report)
    data_card.write(folder, described)
    written = {entry["path"]: {"sha256": entry["sha256"], "bytes": entry["bytes"]} for entry in files}
    manifest = {
        "format": FORMAT,
        **described,
        "findings": [asdict(finding) for finding in (*findings, *report.findings)],
        "files": dict(sorted(inventory(folder, known=written).items())),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _of(files: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in files if entry["split"] == name]


def _share(source: Path, folder: Path) -> None:
    """Give the files of a split a second name in DATA: if the build ends here, the work still has them."""
    folder.mkdir()
    for file in sorted(source.iterdir()):
        (folder / file.name).hardlink_to(file)


def _statistics(job: BuildJob, name: str, files: Sequence[Mapping[str, Any]]) -> Statistics:
    parts = sorted(entry["part"] for entry in files)
    return statistics.merge(statistics.load(job.spec, statistics_path(job, name, part)) for part in parts)


def _counts(job: BuildJob, name: str, files: Sequence[Mapping[str, Any]], replay: ReplayedLog) -> dict[str, Any]:
    counts: dict[str, Any] = {what: sum(entry[what] for entry in files) for what in ("requests", "candidates")}
    for key, side in (("user", "context"), ("item", "candidates")):
        if getattr(job.spec.keys, key) is not None:
            counts[f"{key}s"] = replay.counted.of(name, side)
    for what in ("observed", "positives"):
        counts[what] = {task: sum(entry[what][task] for entry in files) for task in job.spec.tasks}
    if weighted(job.spec.tasks):
        counts["sample_weights"] = sample_weights.merged(entry["sample_weights"] for entry in files)
    return counts


def _unseen(statistics: Statistics, encoders: Mapping[str, Encoder]) -> dict[str, float]:
    """The share of each table's ids that have no row of their own."""
    shares = {}
    for name, counts in statistics.ids.items():
        encoder, total = encoders[name], int(np.sum(counts["count"].to_numpy()))
        if isinstance(encoder, Vocabulary) and total:
            lost = encoder(counts["value"].combine_chunks()) == 0
            shares[name] = round(float(counts["count"].to_numpy()[lost].sum() / total), 6)
    return shares
