"""A replay by the tasks of an engine, such as a cluster's: the same sweep, divided by key and by bucket of its hash.

    here            each slice is prepared; its rows, and the few columns that each key is swept by, are written
    sweep tasks     (key group x hash bucket): all slices in order, and what is known of their rows is written
    assemble tasks  (slice): the answers put back in the order of its rows, and its session tables

The users' histories are one more group. Base rates and sessions are few numbers, and are kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features import hashing
from features.hashing import LINE
from features.pipeline import snapshot
from features.pipeline.assemble import assemble
from features.pipeline.executors import Executor, StepRunner
from features.pipeline.job import BuildJob
from features.pipeline.point_in_time import Columns, PointInTime
from features.pipeline.prepare import PreparedSlice, Preparer
from features.pipeline.replay import ReplayedLog, walked
from features.pipeline.side_columns import SideColumns
from features.pipeline.snapshot import LatestRows
from features.pipeline.spread_files import (
    SpreadJob,
    columns_in,
    listed,
    part_of,
    put_sides,
    put_unit,
    put_words,
    save,
    sides_of,
    table,
    words_of,
)
from features.sweep.events import Answers, Events, Per, RequestKeys
from features.sweep.history_values import HistoryValues
from features.sweep.sweep import Sweep
from features.transforms.counters import NEVER, asked_by, counted_by, numbers_of, outcome
from features.transforms.sessions import Sessions
from rec.data import arrow_file
from rec.errors import SpecError
from rec.progress import Progress
from rec.spec.features import MOMENTS

Engine = Callable[[], AbstractContextManager[Executor]]

_PEOPLE: Per = ()  # the group of histories
_FINAL = {"context": 0, "candidates": 1}  # the questions just after the log's end, which come after its slices


def spread(
    job: BuildJob,
    slices: Iterator[pl.DataFrame],
    preparer: Preparer,
    sides: dict[str, SideColumns],
    *,
    engine: Engine,
    progress: Progress,
) -> ReplayedLog:
    """Sweep a log and write its session tables by an engine's tasks. SpecError where a store's state is asked for."""
    if job.snapshot:
        raise SpecError("--snapshot: a store's state is one sweep's; make it with --engine threads")
    past = PointInTime(job, sides, map, sweep=Sweep(job.spec, only=(), histories=False))
    whole = Sweep(job.spec)
    past.values = {name: HistoryValues(name, feature) for name, feature in whole.histories_of.items()}
    groups = (*whole.groups, *([_PEOPLE] if whole.histories else []))
    rows = sum(piece.rows for piece in job.impressions.pieces)
    shared = SpreadJob(put_sides(job), groups, max(1, round(rows / job.rows)))
    replay = SpreadReplay(past, sides, LatestRows(job), None, shared=shared, engine=engine, progress=progress)
    progress.start("slices")
    for prepared, placed, _ in walked(job, replay, slices, preparer):
        _put(shared, prepared, placed, past)
        replay.shared = replace(replay.shared, slices=prepared.number + 1)
    return replay


class SpreadReplay(ReplayedLog):
    """What the walk over a log leaves; its tables are written when the questions after its end are known."""

    def __init__(self, *values: Any, shared: SpreadJob, engine: Engine, progress: Progress) -> None:
        """The replay, what its tasks share, and who runs them."""
        super().__init__(*values)
        self.shared, self._engine, self._progress = shared, engine, progress

    def finals(self, time: int) -> dict[str, tuple[pl.DataFrame, Columns]]:
        """Run the tasks; the rows of all users and items as of `time`, just after the log's end."""
        self.past.sweep.advance(time)
        rows = {side: self.latest.everybody(side, self.sides, time) for side in self.latest.newest}
        for side, last in rows.items():
            _put_final(self.shared, side, last, time, self.past)
        put_words(self.shared, self.past.values)
        shared = replace(self.shared, as_text=tuple(n for n, table in self.past.values.items() if table.as_text))
        with self._engine() as runner:
            steps = StepRunner(runner, shared.job.work / "steps", self._progress)
            steps.run("sweep", sweep_task, shared, len(shared.groups) * shared.buckets)
            results = steps.run("session tables", assemble_task, shared, shared.slices)
        self.files += [file for result in results for file in result["files"]]
        finals_of = {}
        for side, last in rows.items():
            number = shared.slices + _FINAL[side]
            moments = np.full(len(last), time)
            answers = _answers(shared, number, len(last), np.arange(len(last) + 1))
            figures = {name: np.zeros(len(last)) for name in self.past.sweep.sessions}
            columns = self.past.answered(replace(answers, context=answers.context | figures), moments)
            finals_of[side] = last, columns[side == "candidates"]
        return finals_of


def sweep_task(shared: SpreadJob, index: int) -> int:
    """Sweep one bucket of a group's keys over all slices; how many rows were asked about."""
    group, bucket = divmod(index, shared.buckets)
    per, spec, queries = shared.groups[group], shared.job.spec, 0
    sweep = Sweep(spec, only=(per,), histories=per == _PEOPLE)
    for number in range(shared.slices + len(_FINAL)):
        folder = shared.folder(number)
        if (folder / f"unit-{group}-events.arrow").exists():
            _feed(sweep, per, part_of(folder, f"{group}-events", bucket))
        if not (folder / f"unit-{group}.arrow").exists():
            continue
        part = part_of(folder, str(group), bucket)
        start = np.flatnonzero(np.append(True, np.diff(part["owner"]) != 0)[: len(part["owner"])])
        keys, people = {}, None
        if per == _PEOPLE:
            people = sweep.rows_of_people(part["code"], None)
        else:
            keys = {per: sweep.groups[per].rows(part["code"], None)}
        if "line" in part:
            _feed(sweep, per, part, people)
        context = {key: np.where(part["first"][start], rows[start], np.int32(-1)) for key, rows in keys.items()}
        moments, offsets = part["asked"][start], np.append(start, len(part["code"]))
        bases = [part[f"base {name}"][start] for name in sweep.base_names]
        bases = np.array(bases) if bases else np.full((1, len(start)), np.nan)
        nobody = np.full(len(start), -1, np.int32)
        answers = sweep.ask(
            RequestKeys(moments, offsets, context, keys, people if people is None else people[start], nobody, bases)
        )
        save(folder / f"answers-{group}-{bucket:05d}", dict(answers.candidates))
        of_requests = {name: values for name, values in answers.context.items() if name not in sweep.sessions}
        of_requests |= {"owner": part["owner"][start], "first": part["first"][start]}
        lists = {
            f"{n} {what}": listed(key, place)
            for n, key in answers.histories.items()
            for place, what in ((0, "time"), (1, "value"))
        }
        save(folder / f"requests-{group}-{bucket:05d}", {**of_requests, **lists})
        queries += len(part["code"])
    return queries


def _feed(sweep: Sweep, per: Per, part: Mapping[str, np.ndarray], people: np.ndarray | None = None) -> None:
    """Feed a sweep with the impressions of a unit."""
    keys = {} if per == _PEOPLE else {per: sweep.groups[per].rows(part["code"], None)}
    shape = len(sweep.tasks), len(part["code"])
    labels = np.array([part[f"label {task}"] for task in sweep.tasks], np.int8).reshape(shape)
    held = {name: (part[f"value {name}"], part[f"known {name}"]) for name in sweep.histories}
    numbers = {column: part[f"number {column}"] for column in sweep.numbers}
    sweep.feed(Events(part["time"], part["line"], labels, keys, people, held, numbers))


def assemble_task(shared: SpreadJob, number: int) -> dict[str, Any]:
    """The session tables of a slice; a summary of each file."""
    job, folder = shared.job, shared.folder(number)
    sides = {name: SideColumns(table) for name, table in sides_of(job).items()}
    requests, rows = columns_in(table(folder / "of-requests")), table(folder / "impressions")
    labels = {n.removeprefix("@label."): rows[n].to_numpy() for n in rows.column_names if n.startswith("@label.")}
    offsets = np.append(requests["start"].to_numpy(), len(rows))
    impressions = pl.DataFrame(
        pl.from_arrow(rows.drop_columns([n for n in rows.column_names if n.startswith("@label.")]))
    )
    places = {name: requests[f"places {name}"].to_numpy() for name in sides if name == "users"}
    places |= {name: np.array(table(folder / "places-items")["place"]) for name in sides if name == "items"}
    time = requests["time"].to_numpy()
    grouped = Sessions(impressions, offsets, time, requests["id"].combine_chunks())
    prepared = PreparedSlice(number, grouped, labels, places, np.arange(len(impressions)), impressions.clear())
    answers = _answers(shared, number, len(impressions), offsets)
    figures = {n.removeprefix("session "): requests[n].to_numpy() for n in requests if n.startswith("session ")}
    past = PointInTime(job, sides, map)
    past.values = words_of(shared)
    columns = past.answered(replace(answers, context=answers.context | figures), time)
    return assemble(job, prepared, sides, columns, requests["split"].to_numpy())


def _put(shared: SpreadJob, prepared: PreparedSlice, placed: np.ndarray, past: PointInTime) -> None:
    """Write a slice: its rows, and what each group of keys is swept by."""
    job, sweep, folder = shared.job, past.sweep, shared.folder(prepared.number)
    folder.mkdir(parents=True, exist_ok=True)
    grouped, owner = prepared.grouped, prepared.grouped.owner()
    sweep.feed(past.events(prepared, {}, None))
    sessions = past.open_sessions(prepared) if sweep.sessions else None
    answers = sweep.ask(RequestKeys(grouped.time, grouped.offsets, {}, {}, None, sessions))
    first = np.zeros(len(owner), bool)
    first[prepared.first] = True
    columns = {
        "time": prepared.moments,
        "line": prepared.rows[LINE].to_numpy(),
        "asked": grouped.time[owner],
        "first": first,
    }
    columns |= {
        "owner": owner,
        **{f"base {task}": answers.bases[place][owner] for place, task in enumerate(sweep.base_names)},
    }
    columns |= {f"label {task}": outcome(prepared.labels, task).astype(np.int8) for task in sweep.tasks}
    for number, per in enumerate(shared.groups):
        own = dict(columns)
        if per == _PEOPLE:
            for name in past.values:
                own[f"value {name}"], own[f"known {name}"] = past.held(name, prepared)
        for column in numbers_of(sweep.counters, (per,)):
            own[f"number {column}"] = past.number(column, prepared)
        keys = past.keys(asked_by(per) or (str(job.spec.keys.user),), prepared)
        if counted_by(per) != asked_by(per):
            put_unit(shared, folder, f"{number}-events", past.keys(counted_by(per), prepared), own)
            own.pop("line")  # what is asked by others than it is counted by is asked apart
        put_unit(shared, folder, str(number), keys, own)
    rows = [
        *prepared.rows.get_columns(),
        *(pl.Series(f"@label.{name}", label) for name, label in prepared.labels.items()),
    ]
    arrow_file.write(folder / "impressions.arrow", pl.DataFrame(rows).to_arrow(compat_level=pl.CompatLevel.oldest()))
    of_requests = {"start": prepared.first, "time": grouped.time, "id": grouped.ids, "split": placed}
    of_requests |= {f"session {name}": values for name, values in answers.context.items()}
    of_requests |= {f"places {name}": places for name, places in prepared.places.items() if name == "users"}
    save(folder / "of-requests", of_requests)
    if "items" in prepared.places:
        save(folder / "places-items", {"place": prepared.places["items"]})


def _put_final(shared: SpreadJob, side: str, rows: pl.DataFrame, time: int, past: PointInTime) -> None:
    """Write the questions just after the log's end as a slice without events: each row is a request."""
    folder, count = shared.folder(shared.slices + _FINAL[side]), len(rows)
    folder.mkdir(parents=True, exist_ok=True)
    keys = snapshot.keys_of(shared.job, side, rows)
    bases = past.sweep.base_rates()
    columns = {"asked": np.full(count, time), "first": np.full(count, side == "context"), "owner": np.arange(count)}
    columns |= {f"base {task}": np.full(count, bases.get(task, np.nan)) for task in past.sweep.base_names}
    for number, per in enumerate(shared.groups):
        if per in keys:
            put_unit(shared, folder, str(number), keys[per], columns)
        elif per == _PEOPLE and side == "context":
            user = rows[str(shared.job.spec.keys.user)]
            put_unit(shared, folder, str(number), (hashing.hashed(user), user.is_not_null().to_numpy()), columns)


def _answers(shared: SpreadJob, number: int, rows: int, offsets: np.ndarray) -> Answers:
    """The answers to a slice, in the order of its rows; what has no key has no number."""
    folder, spec = shared.folder(number), shared.job.spec
    sides: dict[str, dict[str, np.ndarray]] = {"context": {}, "candidates": {}}
    histories = {}
    for counter in (counter for own in shared.job.groups.values() for counter in own):
        count = rows if counter.side == "candidates" else len(offsets) - 1
        moment = counter.make in MOMENTS
        sides[counter.side][counter.name] = np.full(count, NEVER) if moment else np.full(count, np.nan, np.float32)
    for group, per in enumerate(shared.groups):
        if not (folder / f"unit-{group}.arrow").exists():
            continue
        order = table(folder / f"unit-{group}.order")["place"].to_numpy()
        names = [f"{group}-{bucket:05d}" for bucket in range(shared.buckets)]
        for name, column in columns_in(
            pa.concat_tables([table(folder / f"answers-{piece}") for piece in names])
        ).items():
            sides["candidates"][name][order] = column.to_numpy()
        requests_of = columns_in(pa.concat_tables([table(folder / f"requests-{piece}") for piece in names]))
        owner, first = requests_of.pop("owner").to_numpy(), requests_of.pop("first").to_numpy()
        if per == _PEOPLE:
            histories = _together(requests_of, owner, len(offsets) - 1, shared)
        else:
            for name, column in requests_of.items():
                sides["context"][name][owner[first]] = column.to_numpy()[first]
    assert spec is shared.job.spec
    return Answers(sides["context"], sides["candidates"], histories, np.zeros((0, 0)))


def _together(
    requests_of: Mapping[str, pa.ChunkedArray], owner: np.ndarray, requests: int, shared: SpreadJob
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Histories of all buckets in the order of requests; who is nobody has empty ones."""
    place = np.full(requests, len(owner))
    place[owner] = np.arange(len(owner))
    columns = {}
    for name in Sweep(shared.job.spec, only=()).histories_of:
        times, values = (_taken(requests_of[f"{name} {what}"], place) for what in ("time", "value"))
        offsets = np.append(0, np.cumsum(times.value_lengths().to_numpy()))
        columns[name] = times.flatten().to_numpy(), values.flatten().to_numpy(), offsets
    return columns


def _taken(lists: pa.ChunkedArray, place: np.ndarray) -> pa.Array:
    nothing = pa.array([[]], pa.large_list(pa.int64()))
    return pa.concat_arrays([*lists.chunks, nothing]).take(pa.array(place))
