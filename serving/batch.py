"""`multigate score`: session tables to Parquet scores, part by part, through the scorer that also serves.

    DATA/test/part-00000.arrow  ->  OUT/part-00000.parquet     a line per candidate
    ...                             ...                        and what serving/scored_parts.py keeps beside them

    request_id  time  context.<user>  candidates.<item>  position  tasks.<output>  score  rank

Names of the spec stand behind the table that they are of, so that none of them is like a column of ours.

A file of more than about _PART requests has several parts. A part is written whole or not at all, so the same command
goes on after the last whole part of one that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from rec.atomic import sha256
from rec.data import splits
from rec.data.session_table import TIME, side_fields, to_batch
from rec.errors import DataError
from rec.output_folder import Origin, Overwrite, digest, opened
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from serving import scored_parts
from serving.bundle import Bundle, load
from serving.memory_limit import BLOCK_BYTES, bounded
from serving.overflow import overflowing
from serving.part_writer import Part, Refuse, Scored, opened_here
from serving.scored_parts import ScoringWorkers
from serving.scorer import NonFiniteError, Scorer, check_golden, order

FORMAT = 3
CANDIDATES = 16_384  # candidates scored at once, about: what is held in memory
_PART = 2 * splits.BLOCK  # requests of a part, about


def score(
    bundle_path: Path,
    data: Path,
    out: Path,
    *,
    split: str = "test",
    workers: ScoringWorkers,
    progress: Progress,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Score every part of a split into `out`; how much there is, how much was scored just now, and how fast.

    Parts that are there, unchanged, and of unchanged rows are kept. Raises FileExistsError when `out` holds anything
    else (rec/output_folder.py), and, after all other parts are scored, DataError naming parts that cannot be read.
    """
    began = perf_counter()
    scorer: Scorer = opened_here(opened_scorer, bundle_path, workers.threads)
    bundle = scorer.bundle
    inputs = splits.files(data, split)
    parts = scored_parts.divided([sections(path) for path in inputs])
    job = scored_parts.Job(
        what=split,
        parts=parts,
        about={"format": FORMAT, "name": bundle.name, "bundle": bundle.digest, "split": split},
        schema=schema_of(bundle.spec, scorer.outputs),
        opened=opened_scorer,
        tables=tables,
    )
    with opened(out, origin(bundle, data, split, parts), overwrite=overwrite, progress=progress):
        done, scored = scored_parts.write(job, bundle, out, workers, progress)
    about = {"bundle": bundle.name, "split": split}
    return about | scored_parts.summary(done, scored=scored, seconds=perf_counter() - began)


def opened_scorer(bundle: Path, threads: int) -> Scorer:
    """The scorer of a bundle, which agrees with its golden scores."""
    scorer = Scorer(load(bundle), threads=threads)
    check_golden(scorer)
    return scorer


def sections(path: Path) -> list[Part]:
    """A file of a split as parts of about _PART requests; one without rows where it cannot be read."""
    try:
        with splits.opened(path) as reader:
            counts = [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]
    except DataError:
        return [Part(path, 0)]
    parts, start, rows = list[Part](), 0, 0
    for stop, count in enumerate(counts, start=1):
        rows += count
        if rows >= _PART or stop == len(counts):
            parts.append(Part(path, rows, start, stop))
            start, rows = stop, 0
    return parts or [Part(path, 0)]


def origin(bundle: Bundle, data: Path, split: str, parts: Mapping[str, Part]) -> Origin:
    """What scores are made of, and what lies in their folder."""
    manifest = data / "manifest.json"
    names = dict.fromkeys(part.path.name for part in parts.values())
    tables = digest([*names], sha256(manifest) if manifest.exists() else None)
    made_of = {"bundle": bundle.digest[:16], "session tables": tables, "split": split, "scores version": FORMAT}
    entries = (*parts, *scored_parts.OWN)
    return Origin("score", bundle.name, made_of, entries, (bundle.path, data), stable=())


def tables(scorer: Scorer, part: Part, _: Refuse) -> Iterator[Scored]:
    """The scores of one part, about CANDIDATES at a time; of a session table no row is refused."""
    read = splits.read_part(part.path, scorer.bundle.spec, start=part.start, stop=part.stop or None, labels=False)
    for rows in bounded(read, BLOCK_BYTES):
        _validate(rows, part.path)
        for block in blocks(rows, CANDIDATES):
            yield Scored(len(block), len(block), score_rows(scorer, block))


def _validate(rows: pa.RecordBatch, path: Path) -> None:
    """Every offset, length and text of rows that may come from anywhere; DataError where one is broken."""
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole session table: {error}") from None


def blocks(rows: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Consecutive requests with at most `most` candidates together; a larger request comes alone."""
    ends = rows.column("candidates").offsets.to_numpy()
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(ends, ends[start] + most, side="right")) - 1
        stop = max(start + 1, min(stop, len(rows)))
        yield rows.slice(start, stop - start)
        start = stop


def schema_of(spec: Spec, outputs: list[str]) -> pa.Schema:
    """The columns of a part of scores."""
    return pa.schema(
        [
            pa.field("request_id", pa.string()),
            pa.field("time", TIME),
            *_key_fields(spec),
            pa.field("position", pa.int32()),
            *(pa.field(f"tasks.{name}", pa.float32()) for name in outputs),
            pa.field("score", pa.float64()),
            pa.field("rank", pa.int32()),
        ]
    )


def _key_fields(spec: Spec) -> list[pa.Field]:
    keys = {"context": spec.key_feature("user"), "candidates": spec.key_feature("item")}
    fields = [(side, field) for side, features in spec.sides() for field in side_fields(features)]
    return [pa.field(f"{side}.{field.name}", field.type) for side, field in fields if field.name == keys[side]]


def score_rows(scorer: Scorer, rows: pa.RecordBatch) -> pa.Table:
    """The scores of session-table rows, one line per candidate, in the order of the rows.

    A candidate with a number so large that the model overflows (serving/overflow.py) has null scores and no rank.
    """
    batch = to_batch(rows, scorer.bundle.spec, scorer.bundle.preprocessor.encoders)
    try:
        return lines(scorer, rows, batch, scorer.score(batch))
    except NonFiniteError:
        refused_N = overflowing(scorer, batch)
        return lines(scorer, rows, batch, scorer.unchecked(scorer.feeds(batch)), refused_N)


def lines(
    scorer: Scorer,
    rows: pa.RecordBatch,
    batch: RequestBatch,
    scores: Mapping[str, np.ndarray],
    refused_N: np.ndarray | None = None,
) -> pa.Table:
    """A line per candidate: its keys, scores, fused score and rank; those that are refused have neither."""
    spec = scorer.bundle.spec
    fused_N = scorer.fused(scores)
    if refused_N is not None:
        fused_N[refused_N] = -np.inf
    offsets = batch.offsets()
    position_N = np.arange(len(batch)) - offsets[batch.owner]
    rank_N = np.empty(len(batch), np.int32)
    rank_N[order(fused_N, offsets)] = position_N + 1
    owner = pa.array(batch.owner)
    columns: list[Any] = [rows.column("request_id").take(owner), rows.column("time").take(owner)]
    if (user := spec.key_feature("user")) is not None:
        columns.append(_child(rows.column("context"), user).take(owner))
    if (item := spec.key_feature("item")) is not None:
        columns.append(_child(rows.column("candidates").flatten(), item))
    values = [pa.array(value_N, mask=refused_N) for value_N in (*scores.values(), fused_N, rank_N)]
    columns += [position_N.astype(np.int32), *values]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema_of(spec, scorer.outputs))


def _child(structs: pa.StructArray, name: str) -> pa.Array:
    return structs.flatten()[structs.type.get_field_index(name)]
