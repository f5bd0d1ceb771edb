"""A whole split as a matrix, in a file without a name that is mapped: memory holds what is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa

from rec.data import splits
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import outcomes_of, to_batch
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.trees import columns
from rec.trees.columns import Codes, Column


@dataclass(frozen=True)
class Matrix:
    """The columns [N, F] float32 of a split, mapped, and its labels and sample weights {name: [N]}, in memory."""

    columns: np.ndarray
    labels: dict[str, np.ndarray]


@dataclass(frozen=True)
class SessionTables:
    """The session tables of a spec, and who shows how far they are read."""

    folder: Path
    spec: Spec
    learnt: Preprocessor
    progress: Progress

    def read(self, split: str, what: str) -> Iterator[tuple[pa.RecordBatch, RequestBatch]]:
        """The rows of a split, block by block, and the same as batches."""
        self.progress.start(what, splits.count(self.folder, split), "requests")
        for rows in splits.read(self.folder, split, self.spec):
            yield rows, to_batch(rows, self.spec, self.learnt.encoders)
            self.progress.advance(len(rows))


def filled(
    tables: SessionTables, split: str, feature_columns: Sequence[Column], codes: Codes, *, beside: Path
) -> Matrix:
    """The matrix of a split, in a file in `beside` that vanishes with the process; OSError where the disk is full."""
    labels: dict[str, list[np.ndarray]] = {name: [] for name in outcomes_of(tables.spec)}
    count = 0
    with TemporaryFile(dir=beside) as file:
        for _, batch in tables.read(split, f"reading {split}"):
            if not len(batch):
                continue
            file.write(columns.matrix(batch, feature_columns, codes).tobytes())
            count += len(batch)
            for name, parts in labels.items():
                parts.append(batch.labels[name])
        file.flush()
        shape = (count, len(feature_columns))
        # the mapping keeps the file alive when it is closed
        mapped = np.memmap(file, np.float32, "r", shape=shape) if count else np.zeros(shape, np.float32)
    return Matrix(mapped, {name: np.concatenate([*parts, np.zeros(0, np.int8)]) for name, parts in labels.items()})
