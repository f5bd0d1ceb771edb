"""`multigate score`: session tables to Parquet scores, part by part, through the scorer that also serves.

    DATA/test/part-00000.arrow  ->  OUT/part-00000.parquet     one row per candidate
    ...                             OUT/_parts.json            what is done so far: digests of inputs and outputs
                                    OUT/_manifest.json         the same, of all parts
                                    OUT/_SUCCESS               empty, written last: the scores are complete

    request_id  time  context.<user>  candidates.<item>  position  tasks.<output>  score  rank

Names of the spec stand behind the table that they are of, so that none of them is like a column of ours.

A part is written whole or not at all, so the same command goes on after the last whole part of one that was killed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.atomic import read_json, sha256, write_bytes, write_json
from rec.data import splits
from rec.data.session_table import TIME, side_fields, to_batch
from rec.errors import DataError
from rec.output_folder import Origin, Overwrite, digest, opened
from rec.progress import Progress
from rec.spec import Spec
from serving.bundle import Bundle, load
from serving.overflow import overflowing
from serving.scorer import NonFiniteError, Scorer, check_golden, order

FORMAT = 2
CANDIDATES = 16_384  # candidates scored at once, about: what is held in memory
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # a part that is being written
DONE, MANIFEST = "_parts.json", "_manifest.json"
SUCCESS = "_SUCCESS"  # for schedulers that wait for it, as Hadoop and Spark write it


def score(
    bundle_path: Path,
    data: Path,
    out: Path,
    *,
    split: str = "test",
    threads: int,
    progress: Progress,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Score every part of a split into `out`; how much there is, how much was scored just now, and how fast.

    Parts that are there, unchanged, and of unchanged rows are kept. Raises FileExistsError when `out` holds anything
    else (rec/output_folder.py), and, after all other parts are scored, DataError naming parts that cannot be read.
    """
    bundle = load(bundle_path)
    scorer = Scorer(bundle, threads=threads)
    check_golden(scorer)
    inputs = splits.files(data, split)
    began = perf_counter()
    with opened(out, origin(bundle, data, split, inputs), overwrite=overwrite, progress=progress):
        done, scored = _parts(scorer, inputs, out, split, progress)
    return _summary(bundle, split, done, scored=scored, seconds=perf_counter() - began)


def origin(bundle: Bundle, data: Path, split: str, inputs: Sequence[Path]) -> Origin:
    """What scores are made of, and what lies in their folder."""
    manifest = data / "manifest.json"
    tables = digest([path.name for path in inputs], sha256(manifest) if manifest.exists() else None)
    made_of = {"bundle": bundle.digest[:16], "session tables": tables, "split": split, "scores version": FORMAT}
    entries = (*(_output(path) for path in inputs), DONE, MANIFEST, SUCCESS)
    return Origin("score", bundle.name, made_of, entries, (bundle.path, data))


def _output(path: Path) -> str:
    return f"{path.stem}.parquet"


def _parts(
    scorer: Scorer, inputs: Sequence[Path], out: Path, split: str, progress: Progress
) -> tuple[dict[str, Any], int]:
    """An entry per part, and how many candidates were scored just now."""
    bundle, before = scorer.bundle, read_json(out / DONE)["parts"] if (out / DONE).exists() else {}
    done = {
        name: before[name]
        for path in inputs
        if (name := _output(path)) in before and _verified(before[name], path, out / name)
    }
    if len(done) == len(inputs) and (out / MANIFEST).exists() and (out / SUCCESS).exists():
        return done, 0
    if (out / MANIFEST).exists() and len(done) < len(inputs):
        stale = len(inputs) - len(done)
        progress.say(f"{out}: {stale} of {len(inputs)} parts are missing or changed, and are scored again")
    (out / SUCCESS).unlink(missing_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    _clean(out, inputs, before, done)
    bad: list[str] = []
    began, scored = perf_counter(), 0

    def record(name: str, entry: Mapping[str, Any]) -> None:
        done[name] = entry
        write_json(out / DONE, _described(bundle, split, done))

    progress.start(f"scoring {split}", sum(map(_size, inputs)), "requests")
    for path in inputs:
        name = _output(path)
        if name in done:
            progress.advance(done[name]["requests"])
            continue
        try:
            _part(scorer, path, out / name, progress, record)
        except DataError as error:
            bad.append(str(error))
            continue
        scored += done[name]["candidates"]
        progress.advance(0, **{"candidates/s": scored / (perf_counter() - began)})
    if bad:
        raise DataError("\n".join([*bad, f"{len(done)} of {len(inputs)} parts were scored into {out}"]))
    write_json(out / MANIFEST, _described(bundle, split, done))
    write_bytes(out / SUCCESS, b"")
    return done, scored


def _clean(out: Path, inputs: Sequence[Path], before: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """Remove what killed runs left, parts that are to be made again, and parts of inputs that are no more.

    Raises FileExistsError for a file in the place of a part that was never recorded: somebody else's.
    """
    names = {_output(path) for path in inputs}
    for file in out.glob(".*.tmp"):
        if (unfinished := _UNFINISHED.fullmatch(file.name)) and unfinished["name"] in names:
            file.unlink()
    for name in sorted(names - set(before)):
        if (out / name).exists():
            raise FileExistsError(f"{out / name}: no part that `multigate score` wrote here; give another --out")
    for name in sorted(set(before) - set(done)):
        (out / Path(name).name).unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Requests of a part; none of one that cannot be read, which its turn will tell."""
    try:
        return splits.count_part(path)
    except DataError:
        return 0


def _verified(entry: Mapping[str, Any], path: Path, output: Path) -> bool:
    return output.is_file() and sha256(output) == entry["sha256"] and sha256(path) == entry["input_sha256"]


def _described(bundle: Bundle, split: str, done: Mapping[str, Any]) -> dict[str, Any]:
    about = {"format": FORMAT, "name": bundle.name, "bundle": bundle.digest, "split": split}
    return {**about, "parts": dict(sorted(done.items()))}


def _summary(bundle: Bundle, split: str, done: Mapping[str, Any], *, scored: int, seconds: float) -> dict[str, Any]:
    return {
        "bundle": bundle.name,
        "split": split,
        "parts": len(done),
        "requests": sum(entry["requests"] for entry in done.values()),
        "candidates": sum(entry["candidates"] for entry in done.values()),
        "seconds": round(seconds, 3),
        "scored": scored,
        "candidates_per_s": round(scored / seconds),
    }


def _part(
    scorer: Scorer, path: Path, output: Path, progress: Progress, record: Callable[[str, Mapping[str, Any]], None]
) -> None:
    """Score one part. Its entry is recorded before it has its name, so that a part without one is somebody else's."""
    spec = scorer.bundle.spec
    digest = sha256(path)
    requests = candidates = 0
    beside = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(beside, schema_of(spec, scorer.outputs)) as writer:
            for rows in splits.read_part(path, spec):
                _validate(rows, path)
                for block in blocks(rows, CANDIDATES):
                    table = score_rows(scorer, block)
                    writer.write_table(table)
                    requests += len(block)
                    candidates += len(table)
                    progress.advance(len(block))
        entry = {"sha256": sha256(beside), "bytes": beside.stat().st_size}
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        record(output.name, {"input_sha256": digest, "requests": requests, "candidates": candidates, **entry})
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)


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
    spec = scorer.bundle.spec
    batch = to_batch(rows, spec, scorer.bundle.preprocessor.encoders)
    refused_N = None
    try:
        scores = scorer.score(batch)
    except NonFiniteError:
        refused_N = overflowing(scorer, batch)
        scores = scorer.unchecked(scorer.feeds(batch))
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
