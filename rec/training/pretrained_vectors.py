"""Rows of embedding tables that start from vectors of a file: `pretrained` of an id feature.

    item_id = { kind = "id", dim = 64, pretrained = "vectors.parquet" }

The file, Parquet or Arrow, has two columns: ids, and lists of `dim` numbers. It is read a block at a time. A row that
has several copies (STEM) starts from its vector in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rec.data.encoders import Encoder, as_ids
from rec.errors import DataError
from rec.modules.embedding_tables import TablePart
from rec.spec import Id, Ids, Spec
from rec.training.state import Run

_BLOCK = 1 << 16  # vectors that are in memory at a time


def files(spec: Spec, base: Path) -> dict[str, Path]:
    """{table: its file}; DataError names one that is not there."""
    named = {
        name: base / feature.pretrained
        for name, feature in spec.tables().items()
        if isinstance(feature, Id | Ids) and feature.pretrained is not None
    }
    for table, path in named.items():
        if not path.is_file():
            raise DataError(f"{table}.pretrained: no such file: {path}")
    return named


def fill(run: Run, base: Path) -> dict[str, Any]:
    """Give every row whose id has a vector that vector; by table: how many ids of it have one, and of how many.

    Raises DataError for a file of another form or width, a vector that is not finite, an id that is there twice, and
    for a file that has no id of the table.
    """
    report: dict[str, Any] = {}
    for table, path in files(run.spec, base).items():
        feature, encoder = run.spec.tables()[table], run.learnt.encoders[table]
        assert isinstance(feature, Id | Ids), "numbers have no vectors"
        parts = [part for part in run.fit.ranker.stored_tables().parts() if part.table == table]
        report[table] = {"file": feature.pretrained, **_filled(parts, path, feature, encoder)}
    return report


def _filled(parts: Sequence[TablePart], path: Path, feature: Id | Ids, encoder: Encoder) -> dict[str, int]:
    seen, vectors = np.zeros(encoder.rows, bool), 0
    with _opened(path) as (schema, blocks):
        ids, lists = _columns(schema, path)
        for block in blocks:
            rows_V = encoder(as_ids(block.column(ids), feature.values, f"{path}: {ids}"))
            vectors_VD = _vectors(block.column(lists), feature.dim, f"{path}: {lists}")
            vectors += len(rows_V)
            known = np.flatnonzero(rows_V)
            rows_K = rows_V[known]
            values, count = np.unique(rows_K, return_counts=True)
            if seen[rows_K].any() or (count > 1).any():
                row = rows_K[seen[rows_K]][0] if seen[rows_K].any() else values[count > 1][0]
                twice = block.column(ids)[int(known[np.flatnonzero(rows_K == row)[0]])]
                raise DataError(f"{path}: {ids}: {twice.as_py()!r} is there twice")
            seen[rows_K] = True
            for part in parts:
                _put(part, rows_K, vectors_VD[known])
    if not seen.any():
        raise DataError(f"{path}: {ids}: none of its {vectors:,} ids is in the vocabulary of {encoder.rows - 1:,}")
    return {"ids": encoder.rows - 1, "known": int(seen.sum()), "unused": vectors - int(seen.sum())}


@torch.no_grad()
def _put(part: TablePart, rows_K: np.ndarray, vectors_KD: np.ndarray) -> None:
    """The rows and columns that a process holds."""
    mine = np.flatnonzero((rows_K >= part.row) & (rows_K < part.row + len(part.weight)))
    whole = np.tile(vectors_KD[mine], (1, part.shape[1] // vectors_KD.shape[1]))
    values = torch.from_numpy(whole[:, part.column : part.column + part.weight.shape[1]].copy())
    part.weight[torch.from_numpy(rows_K[mine] - part.row).to(part.weight.device)] = values.to(part.weight)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema of a Parquet or Arrow file, and its rows block by block."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path, memory_map=True) as file:
                yield file.schema_arrow, file.iter_batches(_BLOCK)
        else:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                blocks = (reader.get_batch(index) for index in range(reader.num_record_batches))
                yield reader.schema, (b.slice(i, _BLOCK) for b in blocks for i in range(0, len(b), _BLOCK))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: neither a Parquet (.parquet) nor an Arrow file: {error}") from None


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str]:
    """The names of the columns of ids and of vectors."""
    lists = [field.name for field in schema if _is_list(field.type)]
    ids = [field.name for field in schema if not _is_list(field.type)]
    if len(lists) != 1 or len(ids) != 1:
        raise DataError(f"{path}: expected a column of ids and one of lists of numbers, got {', '.join(schema.names)}")
    return ids[0], lists[0]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _vectors(column: pa.Array, dim: int, where: str) -> np.ndarray:
    """Lists of `dim` finite numbers [V, dim] float32."""
    if column.null_count:
        raise DataError(f"{where}: a vector is missing (null)")
    flat = column.flatten()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if len(wrong := lengths[lengths != dim]):
        raise DataError(f"{where}: expected vectors of {dim} numbers, the feature's dim, got one of {wrong[0]}")
    if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        raise DataError(f"{where}: expected lists of numbers, got {column.type}")
    vectors = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
    if not np.isfinite(vectors).all():
        raise DataError(f"{where}: a vector has a number that is missing or not finite")
    return vectors
