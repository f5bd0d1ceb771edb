"""What all tasks of a build share: the spec, how logs are read, the partitioning, and the paths of intermediate files.

WORK/
    read/00003.arrow              rows of a piece, sorted by range of user hash           <- partition
    happened/clicked/00000.arrow  rows of a piece of an event log                         <- partition
    shard/00007.arrow ...         a partition's impressions, in requests, with labels     <- prepare
    ask/2/00007.arrow             its lookups of keys that several users share, by bucket <- prepare
    answer/2/00004.arrow          their counters, a batch per partition                   <- aggregate
    data/train/part-00007.arrow   session tables                                          <- assemble
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.hashing import CODE, LINE
from features.logs.logs import EventLog
from features.logs.reader import ReadPlan
from features.logs.timestamps import TIME
from features.transforms import joins
from features.transforms import user_columns as code
from features.transforms.base_rates import BaseRates
from features.transforms.counters import Counter, counters
from features.transforms.joins import ColumnOrigin, SideTable
from rec.data import arrow_file
from rec.spec import Spec

ROWS = 1_000_000  # impressions in a part of the output, and in what one task holds, about


@dataclass(frozen=True)
class Partitioning:
    """Ranges of hashes: `partitions` of users are tasks, `parts` are output files; `buckets` are ranges of keys."""

    partitions: tuple[int, ...] = (0, 1)
    parts: tuple[int, ...] = (0, 1)
    buckets: int = 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many partitions, parts and buckets there are."""
        return len(self.partitions) - 1, len(self.parts) - 1, self.buckets


@dataclass(frozen=True)
class BuildJob:
    """One build; results of a step are filled in for the next."""

    spec: Spec
    work: Path
    impressions: ReadPlan
    happened: Mapping[str, ReadPlan]
    described: Mapping[str, EventLog]
    origins: Mapping[str, ColumnOrigin]
    code: Path | None = None
    latest: int | None = None
    snapshot: bool = False
    division: Partitioning = Partitioning()
    rows: int = 0
    end: int | None = None
    first: int = 0
    last: int = 0
    hours: Mapping[str, BaseRates] = field(default_factory=dict[str, BaseRates])

    @cached_property
    def pieces(self) -> list[tuple[str | None, int]]:
        """Every piece of every log: the name of the event log (None: impressions), and its place in it."""
        logs = [(None, self.impressions), *self.happened.items()]
        return [(name, place) for name, reading in logs for place in range(len(reading.pieces))]

    @cached_property
    def groups(self) -> dict[tuple[str, ...], list[Counter]]:
        """Counters by the key they are per."""
        found: dict[tuple[str, ...], list[Counter]] = {}
        for counter in counters(self.spec):
            found.setdefault(counter.per, []).append(counter)
        return found

    @property
    def foreign(self) -> list[tuple[str, ...]]:
        """Keys whose events are spread over partitions: all but those that include the user."""
        return [per for per in self.groups if self.spec.keys.user not in per]

    @property
    def local(self) -> list[tuple[str, ...]]:
        """Keys whose events are all in one partition: those that include the user."""
        return [per for per in self.groups if self.spec.keys.user in per]

    def spilled(self, name: str | None) -> list[Path]:
        """The files with the rows of a log, in order."""
        reading = self.impressions if name is None else self.happened[name]
        folder = self.work / "read" if name is None else self.work / "happened" / name
        return [folder / f"{place:05d}.arrow" for place in range(len(reading.pieces))]

    def side(self, name: str) -> SideTable | None:
        """The table of users or items."""
        key = self.spec.keys.user if name == "users" else self.spec.keys.item
        return joins.opened(self.work / f"{name}.arrow", key)

    def of(self, table: str, *, per_request: bool | None = None) -> list[str]:
        """The needed columns that a table has; of users, only those for requests or only the others."""
        return [
            column
            for column, origin in self.origins.items()
            if origin.table == table and (per_request is None or origin.per_request == per_request)
        ]


def per_impression(job: BuildJob) -> set[str]:
    """Columns that session tables need of every impression; of the others only the first value per request."""
    spec, found = job.spec, {TIME, CODE, LINE}
    keys = (spec.keys.item, spec.keys.session, spec.split.column)
    found |= {key for key in keys if key is not None} | {c for per in job.groups if len(per) > 1 for c in per}
    found |= {column for per in job.foreign for column in per}
    if job.of("users", per_request=False):
        found.add(str(spec.keys.user))  # by which they are joined
    for side, features in spec.sides():
        for name, feature in features.items():
            if side == "candidates" or getattr(feature, "make", "") in ("history", "gaps"):
                found.add(joins.column_of(feature, name, spec))
    return found | {column for name in job.of("code") for column in code.load(job.code)[name].reads}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray | pa.Array]) -> None:
    """Write arrays of one length as a small table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    arrow_file.write(beside, pa.table({name: pa.array(values) for name, values in arrays.items()}))
    beside.replace(path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote, as numpy."""
    table = arrow_file.read(path, what="part of the work")
    return {name: table[name].to_numpy() for name in table.column_names}
