"""What a build is of: the spec, how logs are read, side tables, and the folder of intermediate files.

WORK/
    runs/impressions/00003.arrow   sorted batches, where files do not tell that they are in order of time
    steps/slices/00007.json        what was written of a slice
    data/train/part-00007.arrow    its session tables
    statistics/train/00007...      what vocabularies and scales are fitted to
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from features.logs.logs import EventLog
from features.logs.reader import ReadPlan
from features.transforms.counters import Counter, asked_by, counters
from features.transforms.joins import ColumnOrigin, SideTable, column_of
from features.transforms.outcome_times import OutcomeTimes
from rec.data.session_table import field_type
from rec.spec import Spec

ROWS = 300_000  # impressions in a slice, about: enough for few files, few enough that stages overlap in a small log


@dataclass(frozen=True)
class BuildJob:
    """One build; `sides` are the tables of users and items, `latest` the last timestamp that is not in the future.

    `times` says which columns hold the timestamps of outcomes, `absent` which columns of labels no log has: then
    nothing is observed, and the session tables are to be scored.
    """

    spec: Spec
    work: Path
    impressions: ReadPlan
    happened: Mapping[str, ReadPlan]
    described: Mapping[str, EventLog]
    origins: Mapping[str, ColumnOrigin]
    sides: Mapping[str, SideTable] = field(default_factory=dict[str, SideTable])
    code: Path | None = None
    times: OutcomeTimes = field(default_factory=OutcomeTimes)
    absent: tuple[str, ...] = ()
    latest: int | None = None
    snapshot: bool = False
    rows: int = ROWS

    @cached_property
    def groups(self) -> dict[tuple[str, ...], list[Counter]]:
        """Counters by the key they are per."""
        by_key: dict[tuple[str, ...], list[Counter]] = {}
        for counter in counters(self.spec):
            by_key.setdefault(counter.per, []).append(counter)
        return by_key

    def of(self, table: str) -> list[str]:
        """The needed columns that a table has."""
        return [column for column, origin in self.origins.items() if origin.table == table]

    def read_by(self, side: str) -> list[str]:
        """The columns that a side is made of: its key, attributes, and the keys that its counters are per."""
        spec = self.spec
        columns = [spec.keys.user if side == "context" else spec.keys.item]
        for name, feature in dict(spec.sides())[side].items():
            if getattr(feature, "make", "column") in ("column", "age", "tokens") and field_type(feature) is not None:
                columns.append(column_of(feature, name, spec))
        columns += [
            column
            for per, of in self.groups.items()
            if any(counter.side == side for counter in of)
            for column in asked_by(per)
        ]
        return list(dict.fromkeys(column for column in columns if column is not None))
