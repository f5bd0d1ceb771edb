"""`multigate score BUNDLE FILES`: files of requests to Parquet scores, through the path that ranks them over HTTP.

    requests.jsonl  ->  OUT/part-00000.parquet     one row per candidate; the columns of serving/batch.py
    more.parquet    ->  OUT/part-00001.parquet     and what serving/scored_parts.py keeps beside them

A file of more than forms.PART_ROWS requests has several parts.

Files of flat rows (serving/request_files/flat.py) are gathered into requests first. Each request is parsed, hydrated
and scored alone, by the functions that the endpoint calls, so that its scores have the bits of the answer. What the
endpoint would refuse goes into quarantine with the same message.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.session_table import TIME
from rec.output_folder import Origin, Overwrite, digest, opened
from rec.progress import Progress
from serving import scored_parts
from serving.batch import CANDIDATES, FORMAT, opened_scorer, schema_of
from serving.bundle import Bundle
from serving.online.parse import ParsedRequest, RequestParser
from serving.online.problems import RequestError
from serving.online.rank import RankService
from serving.part_writer import Part, Refuse, Scored, opened_here
from serving.request_files import expansion, flat, forms, gather
from serving.scored_parts import ScoringWorkers
from serving.scorer import Scorer, order

_BLOCK_BYTES = 64 << 20  # of requests that wait to be written


@dataclass(frozen=True)
class RankingPath:
    """The parser and the ranking path of a bundle."""

    parser: RequestParser
    service: RankService
    scorer: Scorer


@dataclass(frozen=True)
class RankedRequest:
    """A request, its outputs [N] each, fused scores [N], ranks [N], and the rows [N] of their file."""

    request: ParsedRequest
    outputs: Sequence[np.ndarray]
    fused: np.ndarray
    rank: np.ndarray
    rows: Sequence[int] = ()

    @property
    def size(self) -> int:
        """Bytes of what it was sent with, about."""
        sides = (self.request.context, self.request.candidates)
        return len(self.request.request_id) + sum(column.values.nbytes for side in sides for column in side.values())


def score(
    bundle_path: Path,
    files: Sequence[Path],
    out: Path,
    *,
    workers: ScoringWorkers,
    bad_rows: float = 0.0,
    progress: Progress,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Score every request of some files into `out`; how much there is, how much was scored just now, and how fast.

    At most the share `bad_rows` of all rows may be ones that the endpoint would refuse, else DataError with the place
    and reason of the first too many. Raises otherwise as serving/batch.py does.
    """
    paths = forms.paths(files)
    began = perf_counter()
    ranker: RankingPath = opened_here(opened_ranker, bundle_path, workers.threads)
    bundle = ranker.scorer.bundle
    folder = out / gather.SPOOL
    rows = expansion.counted([path for path in paths if forms.is_flat(path)], bundle_path, bundle.spec)
    divided = scored_parts.divided(
        [gather.sections(path, rows[path]) if path in rows else forms.sections(path) for path in paths]
    )
    parts = {name: _placed(part, name, folder) if part.path in rows else part for name, part in divided.items()}
    job = scored_parts.Job(
        what="requests",
        parts=parts,
        about={
            "format": FORMAT,
            "name": bundle.name,
            "bundle": bundle.digest,
            "files": {name: str(part.path) for name, part in parts.items()},
        },
        schema=_schema(ranker.scorer),
        opened=opened_ranker,
        tables=tables,
        bad_rows=bad_rows,
        gathered=partial(_gathered, bundle, parts, folder, progress),
    )
    with opened(out, _origin(bundle, parts), overwrite=overwrite, progress=progress):
        try:
            done, scored = scored_parts.write(job, bundle, out, workers, progress)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    rejected = sum(entry["rejected"] for entry in done.values())
    figures = scored_parts.summary(done, scored=scored, seconds=perf_counter() - began)
    return {"bundle": bundle.name, "rejected": rejected, **figures}


def opened_ranker(bundle: Path, threads: int) -> RankingPath:
    """The ranking path of a bundle, which agrees with its golden scores."""
    scorer = opened_scorer(bundle, threads)
    service = RankService(scorer.bundle, scorer, new_id=str)
    return RankingPath(RequestParser(scorer.bundle.spec), service, scorer)


def _origin(bundle: Bundle, parts: dict[str, Part]) -> Origin:
    paths = list(dict.fromkeys(part.path for part in parts.values()))
    files = digest([path.name for path in paths])
    made_of = {"bundle": bundle.digest[:16], "files of requests": files, "scores version": FORMAT}
    entries = (*parts, *scored_parts.OWN, scored_parts.QUARANTINE, gather.SPOOL)
    return Origin("score", bundle.name, made_of, entries, (bundle.path, *paths), stable=())


def _placed(part: Part, name: str, folder: Path) -> Part:
    """A part of flat rows with the place where they are gathered."""
    return replace(part, source=folder / f"{Path(name).stem}.arrow")


def _gathered(
    bundle: Bundle, parts: Mapping[str, Part], folder: Path, progress: Progress, stale: Mapping[str, Part]
) -> dict[str, int]:
    """Gather the flat rows of every file of which a part is to be scored; how many each such part has."""
    rows: dict[str, int] = {}
    shutil.rmtree(folder, ignore_errors=True)
    files = list(dict.fromkeys(part.path for part in stale.values() if part.source is not None))
    if files:
        folder.mkdir()
        progress.start("gathering rows", len(files), "files")
    mine = {path: {name: part.source for name, part in parts.items() if part.path == path} for path in files}
    sources = {path: [source for source in mine[path].values() if source is not None] for path in files}
    for path, counts in expansion.spooled(sources, bundle.path, bundle.spec):
        rows |= {name: count for name, count in zip(mine[path], counts, strict=True) if name in stale}
        progress.advance(1)
    return rows


def tables(ranker: RankingPath, part: Part, refuse: Refuse) -> Iterator[Scored]:
    """The scores of a part, about CANDIDATES at a time."""
    block: list[RankedRequest] = []
    candidates = rows = size = 0
    for ranked in _of_rows(ranker, part, refuse) if part.source is not None else _of_requests(ranker, part, refuse):
        block.append(ranked)
        candidates += ranked.request.count
        rows += 1 if part.source is None else ranked.request.count
        size += ranked.size
        if max(candidates, len(block)) >= CANDIDATES or size >= _BLOCK_BYTES:
            yield Scored(rows, len(block), _table(ranker.scorer, block))
            block, candidates, rows, size = [], 0, 0, 0
    if block:
        yield Scored(rows, len(block), _table(ranker.scorer, block))


def _of_requests(ranker: RankingPath, part: Part, refuse: Refuse) -> Iterator[RankedRequest]:
    """A request per row."""
    for row, body in forms.requests(part):
        try:
            ranked = _ranked(ranker, body, f"{part.path.name}:{row}")
        except RequestError as error:
            refuse(row, str(error).replace("\n", "; "))
            continue
        yield replace(ranked, rows=[row] * ranked.request.count)


def _of_rows(ranker: RankingPath, part: Part, refuse: Refuse) -> Iterator[RankedRequest]:
    """A candidate per row. Rows that the endpoint would not take are refused alone, if the fault is theirs alone."""
    assert part.source is not None, "flat rows were gathered"
    for gathered in gather.requests(part.source, refuse):
        left: gather.GatheredRequest | None = gathered
        while left is not None and left.rows:
            try:
                ranked = _ranked(ranker, left.body, f"{part.path.name}:{gathered.rows[0]}")
            except RequestError as error:
                left = left.without(error, refuse)
                continue
            yield replace(ranked, rows=left.rows)
            break


def _ranked(ranker: RankingPath, body: bytes | dict[str, Any] | RequestError, name: str) -> RankedRequest:
    """A request of a file, scored; RequestError where the endpoint would refuse it. `name` is its id if it has none."""
    if isinstance(body, RequestError):
        raise body
    if isinstance(body, dict):
        request = ranker.parser.parse_tree(body, None, lambda: name)
    elif len(body) > forms.LINE_BYTES:
        message = f"body: expected at most {forms.LINE_BYTES} bytes in a line"
        raise RequestError(413, "Request too large", [("", message)])
    else:
        request = ranker.parser.parse(body, None, lambda: name)
    scores = ranker.service.scores(request)
    fused_N = ranker.scorer.fused(scores)
    rank_N = np.empty(request.count, np.int32)
    rank_N[order(fused_N, np.array([0, request.count]))] = np.arange(1, request.count + 1)
    return RankedRequest(request, list(scores.values()), fused_N, rank_N)


def _schema(scorer: Scorer) -> pa.Schema:
    """The columns of serving/batch.py, and the row of the file that a line is of."""
    return schema_of(scorer.bundle.spec, scorer.outputs).append(pa.field(flat.ROW, pa.int64()))


def _table(scorer: Scorer, block: Sequence[RankedRequest]) -> pa.Table:
    """The lines of some requests, one per candidate."""
    spec, schema = scorer.bundle.spec, _schema(scorer)
    counts = [scored.request.count for scored in block]
    owner = pa.array(np.repeat(np.arange(len(block)), counts))
    columns: list[Any] = [
        pa.array([scored.request.request_id for scored in block], pa.string()).take(owner),
        pa.array([scored.request.time for scored in block], TIME).take(owner),
    ]
    if (user := spec.key_feature("user")) is not None:
        kind = schema.field(f"context.{user}").type
        sent = [scored.request.context.get(user) for scored in block]
        columns.append(
            pa.concat_arrays([pa.nulls(1, kind) if column is None else column.values for column in sent]).take(owner)
        )
    if (item := spec.key_feature("item")) is not None:
        kind = schema.field(f"candidates.{item}").type
        columns.append(
            pa.concat_arrays(
                [pa.nulls(0, kind), *(s.request.candidates[item].values for s in block if s.request.count)]
            )
        )
    columns.append(np.concatenate([np.arange(count, dtype=np.int32) for count in counts]))
    columns += [np.concatenate(values) for values in zip(*(scored.outputs for scored in block), strict=True)]
    columns += [np.concatenate([s.fused for s in block]), np.concatenate([s.rank for s in block])]
    columns.append(np.concatenate([np.array(s.rows, np.int64) for s in block]))
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)
