"""A sweep as tables, and back: a snapshot is its arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from features.sweep.histories import Histories
from features.sweep.history_values import HistoryValues
from features.sweep.key_group import KeyGroup
from features.sweep.sweep import Sweep, key_of
from rec.request import spans


def figures(sweep: Sweep) -> dict[str, Any]:
    """What is no array: the clock, and base rates as outcomes observed and happened before its whole hour."""
    return {"clock": sweep.clock, "bases": {task: base.known.tolist() for task, base in sweep.bases.items()}}


def tables(sweep: Sweep, values: Mapping[str, HistoryValues]) -> Iterator[tuple[str, pa.Table]]:
    """The arrays of a sweep by name; keys in the order of their rows."""
    for number, group in enumerate(sweep.groups.values()):
        yield f"key-{number}", _group(group)
    yield "people", pa.table({"key": sweep.people.codes()})
    for number, (name, history) in enumerate(sweep.histories.items()):
        yield f"history-{number}", _history(history, len(sweep.people))
        yield f"words-{number}", pa.table({"word": values[name].words.known()})
    stored = sweep.open_sessions
    end = len(stored.table)
    named = {
        "key": stored.table.codes(),
        "first": stored.first[1:end],
        "last": stored.last[1:end],
        "count": stored.count[1:end],
    }
    yield "open_sessions", pa.table(named)
    yield "waiting", pa.table({"time": stored.waiting_time, "row": stored.waiting_row})
    yield "queue", _columns(sweep.queue.saved())


def restore(
    sweep: Sweep, values: Mapping[str, HistoryValues], state: Mapping[str, Any], read: Callable[[str], pa.Table]
) -> None:
    """What `figures` and `tables` gave, back into an empty sweep; `read` gives a table by its name."""
    sweep.clock = state["clock"]
    for task, known in state["bases"].items():
        sweep.bases[task].known = np.array(known, np.int64)
    moved = {}
    for number, (per, group) in enumerate(sweep.groups.items()):
        table = read(f"key-{number}")
        rows = group.rows(table["key"].to_numpy(), None)
        moved[key_of(per)] = np.append(rows, [0, -1])  # the sweep may know keys of its own, which stand before
        for place in range(group.sums.shape[1]):
            group.sums[rows, place] = table[f"sum {place}"].to_numpy()
        for place in range(group.moments.shape[1]):
            group.moments[rows, place] = table[f"last {place}"].to_numpy()
        for name, array, place in _of_values(group):
            array[rows, place] = table[name].to_numpy()
    sweep.rows_of_people(read("people")["key"].to_numpy(), None)
    for number, (name, history) in enumerate(sweep.histories.items()):
        _fill(history, read(f"history-{number}"))
        values[name].add_words(read(f"words-{number}")["word"])
    stored, table, waiting = sweep.open_sessions, read("open_sessions"), read("waiting")
    rows = stored.rows(table["key"].to_numpy(), None)
    stored.first[rows], stored.last[rows], stored.count[rows] = (
        table[n].to_numpy() for n in ("first", "last", "count")
    )
    stored.feed(waiting["time"].to_numpy(), waiting["row"].to_numpy())
    sweep.queue.restore([column.to_numpy() for column in read("queue").columns])
    for name, rows in moved.items():
        queued = sweep.queue.of(name)
        queued[:] = rows[np.where(queued > 0, queued - 1, -2 - queued)]


def _group(group: KeyGroup) -> pa.Table:
    end = len(group.table)
    columns = {"key": group.table.codes()}
    columns |= {f"sum {place}": group.sums[1:end, place] for place in range(group.sums.shape[1])}
    columns |= {f"last {place}": group.moments[1:end, place] for place in range(group.moments.shape[1])}
    return pa.table(columns | {name: array[1:end, place] for name, array, place in _of_values(group)})


def _of_values(group: KeyGroup) -> Iterator[tuple[str, np.ndarray, int]]:
    """Every column of the totals of values, and of those that decay: its name, the array that it is of, and where."""
    for number, values in enumerate(group.values):
        for name, array in values.arrays.items():
            yield from ((f"value {number} {name} {place}", array, place) for place in range(array.shape[1]))


def _history(history: Histories, rows: int) -> pa.Table:
    """Every user's moments and values, oldest first."""
    size = history.size[1:rows].astype(np.int64)
    row, place = np.repeat(np.arange(1, rows), size), spans(history.last - size, size)
    begin = pa.array(np.append(0, np.cumsum(size)), pa.int64())
    lists = [
        pa.LargeListArray.from_arrays(begin, pa.array(block[row, place])) for block in (history.time, history.value)
    ]
    return pa.table(lists, names=["time", "value"])


def _fill(history: Histories, table: pa.Table) -> None:
    times = table["time"].combine_chunks()
    size = times.value_lengths().to_numpy().astype(np.int64)
    rows = np.arange(1, len(size) + 1)
    history.room(len(size) + 1)
    history.size[rows] = size
    row, place = np.repeat(rows, size), spans(history.last - size, size)
    history.time[row, place] = times.flatten().to_numpy()
    history.value[row, place] = table["value"].combine_chunks().flatten().to_numpy()


def _columns(columns: Sequence[np.ndarray]) -> pa.Table:
    return pa.table({str(place): column for place, column in enumerate(columns)})
