"""A folder of tensors: a safetensors file per rank that wrote and a JSON index; no pickle on any path.

    FOLDER/rank-00000.safetensors ...   the parts of tensors that a rank held, as `NAME@OFFSETS`
           index.json                   {tensor: {dtype, size, chunks: [{offsets, sizes, file}]}}
           state.json                   plain values: epoch, step, history
           manifest.json                sha256 and bytes of every file

It is written beside its place and renamed when every rank is done: whole or not at all. All ranks see one file system.
Reading needs neither TorchRec nor as many ranks as wrote.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rec.atomic import flush, read_json, sha256, verify, write_json
from rec.errors import BundleError

FORMAT = 2
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.bool)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _TYPES}


def write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write whole tensors and plain values from one process."""
    beside = fresh(folder)
    entry = write_part(beside, 0, {key(name, [0] * x.dim()): x for name, x in tensors.items()})
    index = {
        name: {
            "dtype": str(x.dtype).removeprefix("torch."),
            "size": list(x.shape),
            "chunks": [{"offsets": [0] * x.dim(), "sizes": list(x.shape), "file": entry["file"]}],
        }
        for name, x in tensors.items()
    }
    finish(folder, index, [entry], state)


def fresh(folder: Path) -> Path:
    """An empty folder beside the place of another, for all ranks to write in."""
    beside = beside_of(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    return beside


def beside_of(folder: Path) -> Path:
    """Where a folder is written before it is renamed."""
    return folder.with_name(f".{folder.name}.tmp")


def write_part(beside: Path, rank: int, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write what a rank holds, flushed to the disk; the file's name, digest and bytes.

    Raises BundleError where a number is NaN or infinite: such weights are no use, and would replace good ones. OSError
    where the disk is full.
    """
    for name, x in parts.items():
        # the sum needs no mask as large as the table; it may overflow, so the mask decides
        if x.is_floating_point() and not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            raise BundleError(f"{beside.parent}: {name.partition('@')[0]} is not finite, so nothing is saved")
    path = beside / f"rank-{rank:05d}.safetensors"
    try:
        save_file({name: _alone(x.detach().cpu()) for name, x in parts.items()}, path)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(f"{path.name}: {error}") from None
    flush(path)
    return {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}


def finish(
    folder: Path, index: Mapping[str, Any], files: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
) -> None:
    """Add the index, the plain values and the manifest, and put the folder in its place."""
    beside = beside_of(folder)
    write_json(beside / "index.json", dict(index))
    write_json(beside / "state.json", dict(state))
    inventory = {file["file"]: {"sha256": file["sha256"], "bytes": file["bytes"]} for file in files}
    for name in ("index.json", "state.json"):
        inventory[name] = {"sha256": sha256(beside / name), "bytes": (beside / name).stat().st_size}
    write_json(beside / "manifest.json", {"format": FORMAT, "files": inventory})
    flush(beside)
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(parent: Path) -> None:
    """Put away what killed processes left among the folders in another: copies, and folders that were being replaced.

    Where one was killed between the two renames that replace a folder, the earlier one is brought back.
    """
    for left in sorted(parent.glob(".*.tmp")):
        folder = parent / left.name.removeprefix(".").removesuffix(".tmp").removesuffix(".old")
        if left == _old(folder) and not folder.exists():
            left.rename(folder)
        else:
            shutil.rmtree(left)


def state(folder: Path) -> dict[str, Any]:
    """The plain values of a folder whose files are verified first; BundleError where one is missing or changed."""
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{folder}: format {manifest.get('format')}, expected {FORMAT}; train again")
    verify(folder, manifest["files"])
    return read_json(folder / "state.json")


def index(folder: Path) -> dict[str, Any]:
    """Every tensor of a folder, by name: its type, size and parts."""
    return read_json(folder / "index.json")


def tensors(folder: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Whole tensors, one after the other, put together from the parts of all ranks."""
    known = index(folder)
    for name in known if names is None else names:
        entry = known[name]
        whole = torch.empty(entry["size"], dtype=DTYPES[entry["dtype"]])
        for chunk in entry["chunks"]:
            place = tuple(slice(o, o + s) for o, s in zip(chunk["offsets"], chunk["sizes"], strict=True))
            offsets = [0] * len(chunk["sizes"])
            whole[place] = part(folder / chunk["file"], key(name, chunk["offsets"]), offsets, chunk["sizes"])
        yield name, whole


def part(path: Path, name: str, offsets: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """A range of one part; BundleError where the file is broken."""
    try:
        with safe_open(path, "pt") as file:
            if not len(sizes):
                return file.get_tensor(name)
            return file.get_slice(name)[tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))]
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None


def key(name: str, offsets: Sequence[int]) -> str:
    """The name of a part inside its file.

    >>> key("tables.item", [500, 0])
    'tables.item@500,0'
    """
    return f"{name}@{','.join(map(str, offsets))}"


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old.tmp")


def _alone(x: Tensor) -> Tensor:
    """A tensor that shares its memory with no other, as safetensors demands."""
    own = x.is_contiguous() and x.untyped_storage().nbytes() == x.nbytes
    return x if own else x.contiguous().clone()
