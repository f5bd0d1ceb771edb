"""The plain view of a trained model: one safetensors file per table and one for the rest, readable by any library.

    MODEL/weights/dense.safetensors           every weight outside the tables, by its name in the network
                  tables/NAME.safetensors     {"weight": [rows, dim]}
                  manifest.json

It is written from the best checkpoint, or that of a refit, a range of rows at a time, so it takes no more memory than
one such range, with neither TorchRec nor the processes that trained.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rec.atomic import inventory, read_json, verify, whole_folder, write_json
from rec.training import checkpoint, tensor_folder

_ROWS = 1 << 16  # that are in memory at a time
_TABLES = "tables."


def write(run: Path) -> Path:
    """Write the plain view of the weights a run is evaluated with, where it is not there yet; its folder.

    Raises BundleError where the checkpoint is missing or was changed.
    """
    best, out = checkpoint.kept(run), run / "weights"
    about = tensor_folder.state(best)
    if (out / "manifest.json").exists() and read_json(out / "manifest.json")["of"] == about:
        return out
    index = tensor_folder.index(best)
    with whole_folder(out) as beside:
        (beside / "tables").mkdir()
        dense = [name for name in index if not name.startswith(_TABLES)]
        held = {name.removeprefix("dense."): x for name, x in tensor_folder.tensors(best, dense)}
        save_file(held, beside / "dense.safetensors")
        for name in index:
            if name.startswith(_TABLES):
                _write_table(best, name, index[name], beside / "tables")
        write_json(beside / "manifest.json", {"format": 1, "of": about, "files": inventory(beside)})
    return out


def read(run: Path) -> dict[str, Tensor]:
    """Every weight by the names of `rec.ranker.weights_of`, verified first; tables are mapped, not read."""
    out = run / "weights"
    verify(out, read_json(out / "manifest.json")["files"])
    tables = {path.stem: load_file(path)["weight"] for path in sorted((out / "tables").glob("*.safetensors"))}
    return load_file(out / "dense.safetensors") | {f"{_TABLES}{name}": weight for name, weight in tables.items()}


def _write_table(folder: Path, name: str, entry: dict[str, Any], out: Path) -> None:
    """One table, part by part, through a map of the file it becomes.

    The file is a length, a JSON header padded to 8 bytes, and the numbers in rows: the safetensors format.
    """
    dtype = tensor_folder.DTYPES[entry["dtype"]]
    kind = {torch.float32: ("F32", np.float32), torch.float16: ("F16", np.float16)}[dtype]
    size = math.prod(entry["size"]) * dtype.itemsize
    header = json.dumps({"weight": {"dtype": kind[0], "shape": entry["size"], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    path = out / f"{name.removeprefix(_TABLES)}.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    if not size:
        return
    rows_RD = np.memmap(path, kind[1], "r+", 8 + len(header), tuple(entry["size"]))
    for chunk in entry["chunks"]:
        (row, column), (rows, columns) = chunk["offsets"], chunk["sizes"]
        key = tensor_folder.key(name, chunk["offsets"])
        for start in range(0, rows, _ROWS):
            some = min(_ROWS, rows - start)
            part = tensor_folder.part(folder / chunk["file"], key, [start, 0], [some, columns])
            rows_RD[row + start : row + start + some, column : column + columns] = part.numpy()
    rows_RD.flush()
