"""A log read in order of time, a slice at a time, in bounded memory.

    logs.order = "time"                       read as it stands, a batch at a time; a row out of order is an error
    files say that they follow each other     read one after the other; what overlaps the next file waits for it
    anything else                             sorted: in memory where the log is small, otherwise by runs on disk

A slice holds about `rows` rows, and all rows of a timestamp; which rows depends on the log alone, and not on how it was
read. Rows of one timestamp stand as in the logs. Without timestamps the order is that of the logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from features.hashing import CODE, LINE
from features.logs import reader, timestamps
from features.logs.logs import Piece
from features.logs.timestamps import TIME
from features.logs.unlabelled import UNLABELLED
from features.pipeline.ordered_rows import OrderedRows, in_order
from features.transforms.sessions import coded
from rec.errors import DataError
from rec.spec import Spec

Row = TypeVar("Row")
HELD = 4  # slices of rows that are held while a log is put in order
_PIECE = 40  # bits for the line within a piece
_BANDS = (10**11, 10**14, 10**17)  # where a count without a unit changes its unit


@dataclass
class Seen:
    """What was seen of a log while it was read: unusable rows, the first and last timestamp of it and of outcomes."""

    bad: list[reader.BadRows] = field(default_factory=list[reader.BadRows])
    rows: int = 0
    first: int | None = None
    last: int | None = None
    end: int | None = None


class TimeOrderedLog:
    """The slices of a log in order of time; it may be read several times."""

    def __init__(
        self, plan: reader.ReadPlan, spec: Spec, folder: Path, *, rows: int, latest: int | None, outcomes: Sequence[str]
    ) -> None:
        """About `rows` rows a slice; `outcomes` are columns that may hold the time of an outcome.

        `latest` is the timestamp (microseconds) after which a row is in the future and unusable.
        """
        self._plan, self._spec, self._folder, self._rows = plan, spec, folder, rows
        self._latest, self._outcomes = latest, outcomes
        self.by = TIME if spec.keys.time is not None else LINE
        self._declared = spec.logs.order == "time"
        self._spans = None if self._declared else self._known_spans()
        self._runs: OrderedRows | None = None
        self.seen = Seen()

    @property
    def assumed_end(self) -> int | None:
        """The last timestamp of the log and of outcomes as its files tell it; None where only reading tells.

        A log that is declared to be in order ends with its last file, which is read for it.
        """
        if self._declared:
            self.seen = Seen()
            for _ in self._batches(len(self._plan.pieces) - 1):
                pass
            return self.seen.end
        if self._spans is None or self.by != TIME:
            return None
        spans = [self._span(piece, column) for piece in self._plan.pieces for column in self._outcomes]
        if any(span is None for span in spans):
            return None
        return max([high for _, high in self._spans] + [span[1] for span in spans if span is not None])

    @property
    def nothing(self) -> pl.DataFrame:
        """No row."""
        keys = self._spec.keys
        kinds = {**self._plan.kinds, **({} if keys.time is None else {TIME: timestamps.MOMENT}), LINE: pl.Int64()}
        kinds |= {UNLABELLED: pl.Int64()} if self._plan.lacking else {}
        coded = self._plan.where == "impressions" and (keys.user or keys.request) is not None
        return pl.DataFrame(schema={**kinds, CODE: pl.UInt64()} if coded else kinds)

    def load(self) -> Seen:
        """Read the log once, unless its order is known; what was seen."""
        if self._spans is None and self._runs is None and not self._declared:
            self._runs = OrderedRows(self._folder, self.by, LINE, held=HELD * self._rows)
            self.seen = Seen()
            for rows in ahead((self._piece(place) for place in range(len(self._plan.pieces))), "reading"):
                self._runs.add(rows)
        return self.seen

    def slices(self) -> Iterator[pl.DataFrame]:
        """Rows of the planned columns with TIME, LINE, and the CODE of whoever they belong to, a slice at a time."""
        self.load()
        way = self._as_declared if self._declared else self._sorted if self._runs is not None else self._streamed
        yield from _sliced(way(), self.by, self._rows)

    def _as_declared(self) -> Iterator[pl.DataFrame]:
        """The pieces as they are named, a batch at a time; DataError for a row before the one above it."""
        self.seen = Seen()
        last: int | None = None
        for place, piece in enumerate(self._plan.pieces):
            for rows in ahead(self._batches(place), "reading"):
                value = rows[TIME].to_physical().to_numpy()
                above = np.append(value[:1] if last is None else last, value[:-1])
                back = np.flatnonzero(value < above)
                if len(back):
                    late, early = _text(int(above[back[0]])), _text(int(value[back[0]]))
                    raise DataError(
                        f'{self._plan.where}: {piece.name}: logs.order = "time", but a row of {early} comes after '
                        f"one of {late}; without logs.order the log is sorted"
                    )
                last = int(value[-1]) if len(value) else last
                yield rows

    def _sorted(self) -> Iterator[pl.DataFrame]:
        assert self._runs is not None, "the log was loaded"
        for low, high in self._runs.ranges(max(1, self._rows // 2)):
            rows = self._runs.between(low, high)
            if rows is not None:
                yield rows

    def _streamed(self) -> Iterator[pl.DataFrame]:
        """The pieces by their first timestamps; what might come after the next piece's first is held back."""
        assert self._spans is not None, "the files tell their order"
        self.seen = Seen()
        spans = self._spans
        order = sorted(range(len(spans)), key=lambda place: (spans[place][0], place))
        begins = [*(spans[place][0] for place in order[1:]), None]
        held: pl.DataFrame | None = None
        before: int | None = None
        for horizon, new in zip(begins, ahead((self._piece(place) for place in order), "reading"), strict=True):
            rows = in_order(new if held is None or held.is_empty() else pl.concat([held, new]), self.by, LINE)
            value = rows[self.by].to_physical()
            if len(rows) and before is not None and int(value.to_numpy()[0]) < before:
                raise DataError(f"{self._plan.where}: a file holds a timestamp before the first that its footer tells")
            cut = len(rows) if horizon is None else int(np.searchsorted(value.to_numpy(), horizon))
            before, held = horizon, rows[cut:]
            yield rows[:cut]

    def _piece(self, place: int) -> pl.DataFrame:
        """The usable rows of a piece."""
        blocks = list(self._batches(place))
        return pl.concat(blocks) if blocks else self.nothing

    def _batches(self, place: int) -> Iterator[pl.DataFrame]:
        """The usable rows of a piece, each with its line and the hash of whoever it belongs to."""
        line, seen = place << _PIECE, self.seen
        for batch, bad in reader.batches(self._plan, place, self._spec, latest=self._latest):
            seen.bad.append(bad)
            lines = np.arange(line, line + len(batch))
            line += len(batch)
            begin, finish = _span(batch, TIME)
            seen.rows += len(batch)
            seen.first, seen.last = _least(seen.first, begin), _most(seen.last, finish)
            seen.end = _most(seen.end, *(_span(batch, column)[1] for column in self._outcomes), finish)
            rows = batch.with_columns(pl.Series(LINE, lines))
            code = coded(self._spec, rows, lines) if self._plan.where == "impressions" else None
            yield rows if code is None else rows.with_columns(pl.Series(CODE, code))

    def _known_spans(self) -> list[tuple[int, int]] | None:
        """The first and last timestamp of every piece, where all files tell it and follow each other, about."""
        if self.by == LINE:
            return [(place << _PIECE, (place + 1) << _PIECE) for place in range(len(self._plan.pieces))]
        spans = [self._span(piece, str(self._spec.keys.time)) for piece in self._plan.pieces]
        known_spans = [span for span in spans if span is not None]
        if len(known_spans) < len(spans) or not all(piece.rows for piece in self._plan.pieces):
            return None
        order = sorted(range(len(known_spans)), key=lambda place: known_spans[place])
        held: list[int] = []
        for place, following in zip(order, [*order[1:], None], strict=True):
            held.append(place)
            begin = None if following is None else known_spans[following][0]
            held = [index for index in held if begin is not None and known_spans[index][1] >= begin]
            if sum(self._plan.pieces[index].rows for index in held) > HELD * max(self._rows, reader.BATCH):
                return None
        return known_spans

    def _span(self, piece: Piece, column: str) -> tuple[int, int] | None:
        """The first and last timestamp in a column of a piece, in microseconds, as its file tells it."""
        kind, span = piece.kinds.get(column), piece.spans.get(column)
        keys = self._spec.keys
        if kind is None or span is None or piece.turn is not None or keys.time_format is not None:
            return None
        if (
            kind.is_integer()
            and keys.time_unit == "auto"
            and len(set(np.searchsorted(_BANDS, np.abs(np.array(span, np.int64))))) > 1
        ):
            return None
        if not (kind.is_integer() or isinstance(kind, pl.Datetime) or kind == pl.Date):
            return None
        low, high = (
            timestamps.parse(pl.Series(span), unit=keys.time_unit, where=column, zone=keys.time_zone)
            .dt.timestamp("us")
            .to_list()
        )
        return None if low is None or high is None else (low, high)


def ahead(source: Iterator[Row], name: str) -> Iterator[Row]:
    """What comes of a source, each made by a thread of that name while the one before it is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as worker:
        coming = worker.submit(next, source, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, source, None)
            yield item


def _sliced(chunks: Iterable[pl.DataFrame], by: str, rows: int) -> Iterator[pl.DataFrame]:
    """Rows in order, cut anew: so many, and those of the last one's timestamp."""
    held: list[pl.DataFrame] = []
    count = 0
    for chunk in chunks:
        held, count = [*held, chunk], count + len(chunk)
        while count > rows:
            whole = pl.concat(held)
            value = whole[by].to_physical().to_numpy()
            new = np.flatnonzero(value[rows:] != value[rows - 1 : -1])
            if not len(new):
                held = [whole]
                break
            cut = rows + int(new[0])
            yield whole[:cut].rechunk()
            held, count = [whole[cut:]], count - cut
    if count:
        yield pl.concat(held).rechunk()


def _span(rows: pl.DataFrame, column: str) -> tuple[int | None, int | None]:
    """The first and the last timestamp of a column, in microseconds; None if it has none."""
    if column not in rows.columns or not isinstance(rows[column].dtype, pl.Datetime) or rows.is_empty():
        return None, None
    moment = rows[column].cast(pl.Datetime("us")).to_physical()
    return moment.min(), moment.max()  # type: ignore[return-value]  # of int64


def _text(moment: int) -> str:
    return f"{pl.Series([moment]).cast(timestamps.MOMENT)[0]:%Y-%m-%dT%H:%M:%S.%fZ}"


def _least(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _most(*moments: int | None) -> int | None:
    return max((moment for moment in moments if moment is not None), default=None)
