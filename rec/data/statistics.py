"""Statistics of training rows, mergeable over parts: counts of ids, distributions of numbers, event counts.

    part of train/  ->  of(...)     Statistics     counts of ids, sketches of numbers and labels, sums of events
    part of test/   ->  ids_of(...) Statistics     counts of ids alone
    several parts   ->  merge(...)  Statistics     equal to those of all their rows at once
    all of train    ->  rec.data.preprocessor.from_statistics

All counts are integers, so the result does not depend on the partitioning; ids are in order of first occurrence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from rec.data import arrow_file, sketch
from rec.data.encoders import as_ids, counted, has_vocabulary
from rec.data.session_table import Flat, flat, neighbours
from rec.data.sketch import QuantileSketch
from rec.data.transforms import number
from rec.spec import Id, Ids, Number, Spec
from rec.spec.tasks import conditional, events, happened, loss_rows, metric_rows, regression_tasks

_PENDING = 1 << 20  # distinct ids of unmerged parts before they are merged


@dataclass(frozen=True)
class Statistics:
    """`ids`: table -> columns `value` and `count`. `numbers`: feature -> sketch of its unscaled values.

    `labels`: regression task -> sketch of the labels it is trained on. `happened`: event -> (positives, negatives)
    among candidates whose parent happened.
    """

    ids: Mapping[str, pa.Table]
    numbers: Mapping[str, QuantileSketch]
    labels: Mapping[str, QuantileSketch]
    happened: Mapping[str, tuple[int, int]]

    def save(self, path: Path) -> None:
        """Write one Arrow file, which `load` reads."""
        columns: dict[str, pa.Array] = {}
        for name, counts in self.ids.items():
            for column in ("value", "count"):
                columns[f"ids.{name}.{column}"] = _listed(counts[column].combine_chunks())
        for kind, sketches in (("numbers", self.numbers), ("amounts", self.labels)):
            for name, histogram in sketches.items():
                columns[f"{kind}.{name}.level"] = pa.array([histogram.level])
                for column in ("key", "count", "rest"):
                    columns[f"{kind}.{name}.{column}"] = _listed(pa.array(getattr(histogram, column)))
        for name, pair in self.happened.items():
            columns[f"happened.{name}"] = pa.array([pair], pa.list_(pa.int64(), 2))
        arrow_file.write(path, pa.table(columns or {"": [None]}))


def load(spec: Spec, path: Path) -> Statistics:
    """Read what `Statistics.save` wrote, `ids_of` included; BundleError when it is missing or broken."""
    table = arrow_file.read(path, what="table of statistics")
    columns = set(table.column_names)

    def column(name: str) -> pa.Array:
        return table[name].combine_chunks()[0].values

    def read(kind: str, name: str) -> QuantileSketch:
        arrays = (column(f"{kind}.{name}.{part}").to_numpy(zero_copy_only=False) for part in ("key", "count", "rest"))
        return QuantileSketch(table[f"{kind}.{name}.level"][0].as_py(), *arrays)

    return Statistics(
        ids={
            name: pa.table({part: column(f"ids.{name}.{part}") for part in ("value", "count")})
            for _, name, _ in vocabularies(spec)
        },
        numbers={name: read("numbers", name) for _, name, _ in scaled(spec) if f"numbers.{name}.key" in columns},
        labels={
            name: read("amounts", name) for name in regression_tasks(spec.tasks) if f"amounts.{name}.key" in columns
        },
        happened={
            name: tuple(table[f"happened.{name}"][0].as_py())
            for name in events(spec.tasks)
            if f"happened.{name}" in columns
        },
    )


def of(spec: Spec, rows: Flat) -> Statistics:
    """The statistics of some requests; context values count once per request."""
    columns = {"context": rows.context, "candidates": rows.candidates}
    times = {"context": rows.time, "candidates": rows.time[rows.owner]}
    rows_of = metric_rows(spec.tasks, rows.labels)
    sums: dict[str, tuple[int, int]] = {}
    for name, task in events(spec.tasks).items():
        _, counted_N = rows_of[conditional(name, task.given) if task.given else name]
        yes = int((counted_N & happened(rows.labels[name])).sum())
        sums[name] = yes, int(counted_N.sum()) - yes
    of_neighbours = neighbours(spec, rows)
    numbers = {
        name: of_neighbours[side][name] if name in of_neighbours[side] else number(columns[side][name], f, times[side])
        for side, name, f in scaled(spec)
    }
    return replace(
        ids_of(spec, rows),
        numbers={name: sketch.of(values) for name, values in numbers.items()},
        labels={
            name: sketch.of(rows.labels[name][loss_rows(name, task, rows.labels)])
            for name, task in regression_tasks(spec.tasks).items()
        },
        happened=sums,
    )


def ids_of(spec: Spec, rows: Flat) -> Statistics:
    """The id counts of some requests: all that validation and test splits need."""
    columns = {"context": rows.context, "candidates": rows.candidates}
    ids = {name: _counted(columns[side][name], f, f"{side}.{name}") for side, name, f in vocabularies(spec)}
    return Statistics(ids, numbers={}, labels={}, happened={})


def of_rows(rows: pa.RecordBatch, spec: Spec) -> Statistics:
    """The statistics of session-table rows."""
    return of(spec, flat(rows, spec))


def merge(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of all rows of the parts, in the order of the parts; at least one part."""
    merged: Statistics | None = None
    pending: list[Statistics] = []
    for part in parts:
        pending.append(part)
        held = 0 if merged is None else _distinct(merged)
        # merge when pending ids are about as many as merged ones, so that each is merged few times
        if sum(map(_distinct, pending)) > held + _PENDING:
            merged, pending = _merged([merged, *pending] if merged else pending), []
    return _merged([merged, *pending] if merged else pending)


def vocabularies(spec: Spec) -> list[tuple[str, str, Id | Ids]]:
    """(side, name, feature) of every feature that declares a vocabulary."""
    return [
        (side, name, feature)
        for side, features in spec.sides()
        for name, feature in features.items()
        if isinstance(feature, Id | Ids) and feature.table is None and has_vocabulary(feature)
    ]


def scaled(spec: Spec) -> list[tuple[str, str, Number]]:
    """(side, name, feature) of every number whose scale or buckets are fitted."""
    return [
        (side, name, feature)
        for side, features in spec.sides()
        for name, feature in features.items()
        if isinstance(feature, Number) and feature.scale != "none"
    ]


def _counted(column: pa.Array, feature: Id | Ids, where: str) -> pa.Table:
    return counted(as_ids(column.flatten() if isinstance(feature, Ids) else column, feature.values, where))


def _distinct(part: Statistics) -> int:
    return sum(map(len, part.ids.values()))


def _merged(parts: list[Statistics]) -> Statistics:
    first, *others = parts
    if not others:
        return first
    numbers, labels, sums = dict(first.numbers), dict(first.labels), dict(first.happened)
    for part in others:
        numbers = {name: sketch.merged(counts, part.numbers[name]) for name, counts in numbers.items()}
        labels = {name: sketch.merged(counts, part.labels[name]) for name, counts in labels.items()}
        sums = {name: (yes + part.happened[name][0], no + part.happened[name][1]) for name, (yes, no) in sums.items()}
    return Statistics(
        {name: _together([part.ids[name] for part in parts]) for name in first.ids}, numbers, labels, sums
    )


def _together(counts: list[pa.Table]) -> pa.Table:
    """The summed counts of several parts, in order of first occurrence."""
    grouped = pa.concat_tables(counts).group_by("value", use_threads=False).aggregate([("count", "sum")])
    return pa.table({"value": grouped["value"].combine_chunks(), "count": grouped["count_sum"].combine_chunks()})


def _listed(values: pa.Array) -> pa.Array:
    """A column as a list column of one row."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
