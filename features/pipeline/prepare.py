"""Step 2, prepare: a partition's impressions deduplicated, attributed, grouped into requests and labelled.

rows of some users -> duplicates dropped -> events attributed -> requests -> side tables joined -> labels
    -> shard/<p>.arrow          impressions, request by request, with labels
    -> shard/<p>.requests.arrow first row, time, user and id of each request
    -> ask/<g>/<p>.arrow        lookups (key, timestamp, timestamp of the request, labels) by bucket of the key
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features import checks, hashing
from features.hashing import CODE, LINE
from features.logs.logs import Finding
from features.logs.timestamps import MOMENT, TIME
from features.pipeline import shuffle
from features.pipeline.job import BuildJob, load_arrays, per_impression, save_arrays
from features.transforms import attribution, labels, session_gaps, sessions
from features.transforms import user_columns as code
from features.transforms.base_rates import BaseRates
from features.transforms.sessions import Sessions
from rec.data import arrow_file
from rec.errors import DataError
from rec.spec import Spec
from rec.spec.tasks import behaviours

LABEL = "@label."
PLACE = "@place"
HEAVY = 0.05  # share of all impressions from which a user is reported
ENOUGH = 10_000  # impressions: below it everybody has a large share


@dataclass(frozen=True)
class Partition:
    """A partition's requests, labels of behaviours and regression tasks, and impressions with joined columns."""

    grouped: Sessions
    rows: pl.DataFrame
    labels: Mapping[str, np.ndarray]
    aside: pl.DataFrame

    def impressions(self, places: np.ndarray) -> pl.DataFrame:
        """Some impressions with all their columns; those in `aside`, in the order of the logs, only requests need."""
        found = self.rows[places]
        others = [column for column in self.aside.columns if column not in found.columns]
        return found.hstack(self.aside.select(others)[self.grouped.place[places]]) if others else found

    @property
    def moments(self) -> np.ndarray:
        """The timestamp of each impression [N], microseconds."""
        return moments_of(self.rows)


def moments_of(rows: pl.DataFrame) -> np.ndarray:
    """The timestamps of impressions, microseconds since 1970; 0 if the logs have no time."""
    return rows[TIME].dt.timestamp("us").to_numpy() if TIME in rows.columns else np.zeros(len(rows), np.int64)


def prepare(job: BuildJob, index: int) -> dict[str, Any]:
    """Sort and label a partition; its findings, and outcomes by the hour in which they became known."""
    spec = job.spec
    low, high = job.division.partitions[index : index + 2]
    spilled = shuffle.read(job.spilled(None), low, high)
    rows, kept, repeats = _without_repeats(spec, spilled)
    happened = {name: _events(job, name, low, high) for name in job.happened}
    findings = [] if repeats is None else [repeats]
    if happened:
        rows, lost = attribution.attribute(spec, rows, happened, job.described)
        findings += lost
    made = [rows[column] for column in rows.columns if column not in spilled.columns]
    grouped = sessions.group(spec, rows)
    joined = joined_rows(job, grouped)
    label, noted = labels.settled(spec, labels.read(spec, joined), joined, job.end)
    shard = Partition(grouped, joined, label, aside=pl.DataFrame())
    sides = {name: table for name in ("users", "items") if (table := job.side(name)) is not None}
    findings += checks.of_partition(spec, grouped, joined, sides) + session_gaps.compared(spec, grouped, shard.moments)
    findings += [*noted, *_contradictions(spec, shard), *_heavy(job, grouped)]
    _save(job, index, shard, [column.gather(grouped.place) for column in made], kept)
    for group, per in enumerate(job.foreign):
        _ask(job, per, job.work / "ask" / str(group) / f"{index:05d}.arrow", shard)
    save_arrays(_names(job, index), {"name": np.sort(hashing.hashed(pl.Series(grouped.ids)))})
    return {"findings": [asdict(one) for one in findings], "hours": _hours(spec, shard)}


def _events(job: BuildJob, name: str, low: int, high: int) -> pl.DataFrame:
    """The events of a partition's users; without any, an empty table of the same columns."""
    rows = shuffle.read(job.spilled(name), low, high)
    return rows if rows.columns else pl.DataFrame(schema={**job.happened[name].kinds, TIME: MOMENT})


def joined_rows(job: BuildJob, grouped: Sessions) -> pl.DataFrame:
    """A partition's impressions joined with side tables of items (and users, for candidates), and computed columns."""
    rows, time = grouped.rows, grouped.time[grouped.owner()]
    for name in ("items", "users"):
        table = job.side(name)
        if table is not None:
            rows = table.joined(rows, job.of(name, per_request=False if name == "users" else None), time)
    return code.evaluate(job.code, job.of("code"), rows)


def opened(job: BuildJob, index: int) -> Partition:
    """The result of `prepare`, with the columns that session tables need."""
    path = job.work / "shard" / f"{index:05d}.arrow"
    made = pl.DataFrame(pl.from_arrow(arrow_file.read(path, what="partition")))
    label = {name: made[LABEL + name].to_numpy() for name in _labelled(job.spec)}
    request = arrow_file.read(path.with_suffix(".requests.arrow"), what="partition's requests")
    place, wide = made[PLACE].to_numpy(), per_impression(job)
    here = job.division.partitions[index : index + 2]
    rows = shuffle.read(job.spilled(None), *here, columns=wide)[place]
    every = job.impressions.kinds if job.snapshot else job.of("impressions")
    aside = shuffle.read(job.spilled(None), *here, columns=set(every) - wide)
    grouped = Sessions(
        rows=rows.hstack(made.drop(PLACE, *(LABEL + name for name in label))),
        offsets=np.append(request["start"].to_numpy(), len(made)),
        time=request["time"].to_numpy(),
        ids=request["id"].combine_chunks(),
        place=place,
        code=request["code"].to_numpy(),
    )
    return Partition(grouped, joined_rows(job, grouped), label, aside=aside)


def shared_requests(job: BuildJob) -> None:
    """DataError for request ids that rows of several partitions have: requests of several users."""
    partitions = job.division.sizes[0]
    if job.spec.keys.request is None or job.spec.keys.user is None or partitions == 1:
        return
    names = [load_arrays(_names(job, index))["name"] for index in range(partitions)]
    borders = [np.uint64(2**64 * edge // partitions) for edge in range(partitions)]
    edges = [[*np.searchsorted(one, borders), len(one)] for one in names]
    for low, high in pairwise(range(partitions + 1)):
        cut = [one[edge[low] : edge[high]] for one, edge in zip(names, edges, strict=True)]
        here = np.sort(np.concatenate(cut))
        shared = np.unique(here[1:][here[1:] == here[:-1]])
        if len(shared):
            found = opened(job, next(i for i, one in enumerate(names) if np.isin(shared[0], one))).grouped
            example = found.ids[int(np.flatnonzero(hashing.hashed(pl.Series(found.ids)) == shared[0])[0])]
            raise DataError(f"keys.request: {len(shared)} request ids have several users, such as {example.as_py()!r}")


def key_of(per: tuple[str, ...], rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The hash of a key in every row [N] uint64, and where it is missing [N] bool."""
    return hashing.together([rows[column] for column in per])


def _contradictions(spec: Spec, shard: Partition) -> list[Finding]:
    """Contradictory labels: negative regression labels, and children without parents."""
    found = labels.below_nothing(spec, shard.labels, shard.rows)
    return found + labels.orphans(spec, shard.labels, shard.rows)


def _heavy(job: BuildJob, grouped: Sessions) -> list[Finding]:
    """Users with more than 5% of the log, robots perhaps; a user's impressions are never split over partitions."""
    user = job.spec.keys.user
    if user is None or job.rows < ENOUGH:
        return []
    starts = np.flatnonzero(np.diff(grouped.code.view(np.int64), prepend=~grouped.code[:1].view(np.int64)))
    shown = np.diff(np.append(grouped.offsets[:-1][starts], len(grouped.rows)))
    heavy = np.flatnonzero(shown >= HEAVY * job.rows)
    first = grouped.rows[user].gather(grouped.offsets[:-1][starts[heavy]])
    told = tuple(f"{user}={one}: {rows:,}" for one, rows in zip(first, shown[heavy].tolist(), strict=True))
    text = f"no user has more than {HEAVY:.0%} of the log"
    return [Finding("heavy users", True, int(shown[heavy].sum()), len(grouped.rows), told[:3], text, "warn")]


def _names(job: BuildJob, index: int) -> Path:
    return job.work / "shard" / f"{index:05d}.names.arrow"


def _labelled(spec: Spec) -> list[str]:
    return [*spec.tasks, *spec.events]


def _without_repeats(spec: Spec, rows: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray, Finding | None]:
    """Duplicates, rows equal in every column and timestamp, are one impression: the rows kept, and their places."""
    text = "duplicates of another impression in every column that is read, timestamp included: the first is kept"
    if TIME not in rows.columns or spec.logs.duplicates == "keep":
        return rows, np.arange(len(rows)), None
    few = [key for key in (CODE, LINE, TIME, spec.keys.item) if key in rows.columns]  # what repeats, repeats these
    hashes = rows.select(few).hash_rows()
    again = pl.Series([], dtype=pl.UInt32) if hashes.n_unique() == len(rows) else hashes.is_duplicated().arg_true()
    again = again.gather(rows[again].hash_rows().is_duplicated().arg_true()) if len(again) else again
    if not len(again):
        return rows, np.arange(len(rows)), Finding("duplicates", True, 0, len(rows), (), text)
    repeated = ~rows[again].select(pl.struct(rows.columns).is_first_distinct()).to_series()
    places = again.filter(repeated).to_numpy()
    # examples by the user's hash, as partitions are, so that the first few are the same in however many
    by_user = places[np.argsort(rows[CODE].to_numpy()[places], kind="stable")] if CODE in rows.columns else places
    shown = labels.examples(spec, rows, by_user)
    kept = np.delete(np.arange(len(rows)), places)
    return rows[kept], kept, Finding("duplicates", True, len(places), len(rows), shown, text)


def _save(job: BuildJob, index: int, shard: Partition, made: list[pl.Series], kept: np.ndarray) -> None:
    """Save the order of the rows, columns `made` of events, and labels."""
    path = job.work / "shard" / f"{index:05d}.arrow"
    grouped = shard.grouped
    extra = [pl.Series(LABEL + name, label) for name, label in shard.labels.items()]
    rows = pl.DataFrame([pl.Series(PLACE, kept[grouped.place]), *made, *extra])
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow_file.write(path, rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
    request = {"start": grouped.offsets[:-1], "time": grouped.time, "code": grouped.code, "id": grouped.ids}
    save_arrays(path.with_suffix(".requests.arrow"), request)


def _ask(job: BuildJob, per: tuple[str, ...], path: Path, shard: Partition) -> None:
    """Write a partition's lookups of a key, by bucket; rows without the key are left out."""
    code, missing = key_of(per, shard.rows)
    tasks = dict.fromkeys(counter.task for counter in job.groups[per] if counter.task is not None)
    columns = {
        "code": code,
        "time": shard.moments,
        "at": shard.grouped.time[shard.grouped.owner()],
        **{LABEL + task: shard.labels[task] for task in tasks},
    }
    if missing.any():
        columns = {name: values[~missing] for name, values in columns.items()}
    with shuffle.writing(path) as writer:
        writer.write(pl.DataFrame(columns), hashing.bucket(columns["code"], job.division.buckets))


def _hours(spec: Spec, shard: Partition) -> dict[str, list[list[int]]]:
    time = shard.moments
    known = behaviours(spec)
    return {
        name: BaseRates.of(time + int(one.window.total_seconds() * 1_000_000), shard.labels[name]).plain()
        for name, one in known.items()
    }
