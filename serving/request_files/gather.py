"""Flat rows gathered into requests: the rows of a request need not lie together, and memory is bounded.

    FILE  ->  OUT/_spool/part-00000-00000.arrow     the typed rows of some requests, in the order of the file
              OUT/_spool/part-00000-00001.arrow     those of others, chosen by the hash of what makes them one request

Rows are one request by its id; without ids, by time and context together. Each part has about PART_ROWS rows, at most
PARTS of a file, and is the only thing that a worker holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rec.errors import DataError
from rec.spec import Spec
from serving.online.problems import RequestError
from serving.part_writer import Part, Refuse
from serving.request_files import flat

PART_ROWS = 100_000
PARTS = 256  # of a file: that many are written at a time
SPOOL = "_spool"
_CANDIDATE, _INDEX = re.compile(r"/candidates/[^/]+/(\d+)"), re.compile(r"^candidates\[\d+\]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class GatheredRequest:
    """A request of several rows: its body, with candidates in columns, and the number of each candidate's row."""

    body: dict[str, Any]
    rows: list[int]

    def without(self, error: RequestError, refuse: Refuse) -> GatheredRequest | None:
        """What is left without the rows that an error names; None where it does not lie in single candidates."""
        faults: dict[int, list[str]] = {}
        for pointer, message in error.problems:
            place = _CANDIDATE.fullmatch(pointer)
            if place is None:
                for row in self.rows:
                    refuse(row, str(error).replace("\n", "; "))
                return None
            faults.setdefault(int(place[1]), []).append(_INDEX.sub("candidates", message))
        for index, messages in sorted(faults.items()):
            refuse(self.rows[index], "; ".join(messages))
        stays = [index for index in range(len(self.rows)) if index not in faults]
        candidates = {name: [values[index] for index in stays] for name, values in self.body["candidates"].items()}
        return GatheredRequest({**self.body, "candidates": candidates}, [self.rows[index] for index in stays])


def rows(path: Path, spec: Spec) -> int:
    """The rows of a file; 0 where it cannot be read, as reading it will tell."""
    try:
        return flat.count(flat.open_file(path, spec)[0])
    except DataError:
        return 0


def sections(path: Path, rows: int) -> list[Part]:
    """The parts of a file of so many rows."""
    parts = min(max(1, -(-rows // PART_ROWS)), PARTS)
    return [Part(path, -(-rows // parts), number, parts) for number in range(parts)]


def spooled(path: Path, spec: Spec, sources: Sequence[Path]) -> list[int]:
    """Write the rows of a file to the sources of its parts; how many each has. What is wrong with it is written too."""
    rows = [0] * len(sources)
    try:
        file, columns = flat.open_file(path, spec)
        with ExitStack() as stack:
            writers: dict[int, Any] = {}
            for table in flat.typed(file, columns, spec) if file is not None else ():
                number = table[flat.KEY].to_numpy() % len(sources)
                for index in np.unique(number).tolist():
                    chosen = table.filter(pl.Series(number == index)).to_arrow()
                    if index not in writers:
                        sink = stack.enter_context(pa.OSFile(str(sources[index]), "wb"))
                        writers[index] = stack.enter_context(pa.ipc.new_file(sink, chosen.schema))
                    writers[index].write_table(chosen)
                    rows[index] += len(chosen)
    except DataError as error:
        unreadable(sources, str(error))
    return rows


def unreadable(sources: Sequence[Path], reason: str) -> None:
    """What is said of a file in the place of its rows."""
    for source in sources:
        source.unlink(missing_ok=True)
        source.with_suffix(".txt").write_text(reason, encoding="utf-8")


def requests(source: Path, refuse: Refuse) -> Iterator[GatheredRequest]:
    """The requests of a part in the order of their first rows; DataError where its file could not be read."""
    if source.with_suffix(".txt").exists():
        raise DataError(source.with_suffix(".txt").read_text(encoding="utf-8"))
    if not source.exists():  # no row has a hash of this part
        return
    with pa.OSFile(str(source)) as file:
        rows = pl.DataFrame(pa.ipc.open_file(file).read_all())
    bad = rows.filter(pl.col(flat.REASON).is_not_null())
    for row, reason in zip(bad[flat.ROW], bad[flat.REASON], strict=True):
        refuse(row, reason)
    yield from _gathered(rows.filter(pl.col(flat.REASON).is_null()), refuse)


def _gathered(rows: pl.DataFrame, refuse: Refuse) -> Iterator[GatheredRequest]:
    if rows.is_empty():
        return
    _, first, owner = np.unique(rows[flat.KEY].to_numpy(), return_index=True, return_inverse=True)
    differs = _differing(rows, first[owner])
    for index in np.flatnonzero(differs != ""):
        refuse(int(rows[flat.ROW][int(index)]), str(differs[index]))
    stays = np.flatnonzero(differs == "")
    order = stays[np.argsort(first[owner[stays]], kind="stable")]
    edges = np.flatnonzero(np.diff(first[owner[order]], prepend=-1, append=-1))
    rows = rows[order]
    values = {name: _sent(rows[name]) for name in rows.columns if name not in (flat.REASON, flat.KEY)}
    for start, stop in pairwise(edges.tolist()):
        yield _request(values, start, stop)


def _request(values: Mapping[str, list[Any]], start: int, stop: int) -> GatheredRequest:
    time = _EPOCH + timedelta(microseconds=values[flat.TIME][start])
    body: dict[str, Any] = {"time": time.isoformat(), "context": {}, "candidates": {}}
    if flat.REQUEST in values:
        body["request_id"] = values[flat.REQUEST][start]
    for place, column in values.items():
        side, _, name = place.partition(".")
        if name:
            body[side][name] = column[start] if side == "context" else column[start:stop]
    return GatheredRequest(body, values[flat.ROW][start:stop])


def _differing(rows: pl.DataFrame, first: np.ndarray) -> np.ndarray:
    """Why a row cannot be of its request [N]: another time or context than the first; empty where it can."""
    reasons = np.full(len(rows), "", object)
    for name in rows.columns:
        if name not in (flat.TIME, flat.REQUEST) and not name.startswith("context."):
            continue
        column = flat.comparable(rows[name])
        other = (~column.eq_missing(column.gather(first))).to_numpy() & (reasons == "")
        for index in np.flatnonzero(other):
            reasons[index] = f"{name}: another than in row {rows[flat.ROW][int(first[index])]} of the same request"
    return reasons


def _sent(column: pl.Series) -> list[Any]:
    """The values of a column, as JSON has them."""
    if isinstance(column.dtype, pl.Datetime):
        return [None if value is None else value.isoformat() for value in column.to_list()]
    return column.to_list()
