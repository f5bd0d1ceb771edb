"""Rows of a saved tensor copied into live rows, a range at a time, however either is divided over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.training import tensor_folder

_ROWS = 1 << 16  # that are in memory at a time


@dataclass(frozen=True)
class Saved:
    """A tensor of a folder (rec/training/tensor_folder.py), and its entry in the folder's index."""

    folder: Path
    name: str
    entry: Mapping[str, Any]


def read(saved: Saved, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """A range of a tensor, from the parts of all ranks: [rows], or [rows, columns] of one that has columns."""
    ranges = [rows, columns][: len(saved.entry["size"])]
    out = torch.empty([stop - start for start, stop in ranges], dtype=tensor_folder.DTYPES[saved.entry["dtype"]])
    for chunk in saved.entry["chunks"]:
        low = [max(start, offset) for (start, _), offset in zip(ranges, chunk["offsets"], strict=True)]
        edges = [offset + size for offset, size in zip(chunk["offsets"], chunk["sizes"], strict=True)]
        high = [min(stop, edge) for (_, stop), edge in zip(ranges, edges, strict=True)]
        sizes = [stop - start for start, stop in zip(low, high, strict=True)]
        if min(sizes) <= 0:
            continue
        inside = [start - offset for start, offset in zip(low, chunk["offsets"], strict=True)]
        place = tuple(slice(a - start, b - start) for (start, _), a, b in zip(ranges, low, high, strict=True))
        key = tensor_folder.key(saved.name, chunk["offsets"])
        out[place] = tensor_folder.part(saved.folder / chunk["file"], key, inside, sizes)
    return out


@torch.no_grad()
def copy(saved: Saved, from_R: np.ndarray, live: Tensor, *, columns: tuple[int, int]) -> None:
    """Fill the rows of `live` [R] or [R, columns] from the rows `from_R` of a saved tensor; those of -1 stay."""
    order = np.argsort(from_R, kind="stable")
    rows = from_R[order]
    for start in range(0, saved.entry["size"][0], _ROWS):
        low, high = np.searchsorted(rows, [start, start + _ROWS])
        if low == high:
            continue
        first, last = int(rows[low]), int(rows[high - 1]) + 1
        picked = read(saved, (first, last), columns)[torch.from_numpy(rows[low:high] - first)]
        live[torch.from_numpy(order[low:high]).to(live.device)] = picked.to(live)
