"""How torch.distributed.checkpoint writes and reads a folder of tensors (rec/training/tensor_folder.py).

Its planner says which rank writes which part, and which parts a rank needs under the plan of sharding it has now.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from rec import world
from rec.training import tensor_folder


def write(folder: Path, tensors: dict[str, Tensor], state: Mapping[str, Any], group: dist.ProcessGroup) -> None:
    """Write sharded and whole tensors, and plain values; all ranks of the group call together."""
    save(tensors, storage_writer=Writer(folder, state), process_group=group)


def read(folder: Path, live: dict[str, Tensor]) -> None:
    """Fill live tensors, sharded or whole; all ranks call together."""
    load(live, storage_reader=Reader(folder))


def copied(tensor: Tensor) -> Tensor:
    """A tensor as it is now, in the host's memory; of a sharded one the parts that this rank holds."""
    if not isinstance(tensor, ShardedTensor):
        return tensor.detach().to("cpu", copy=True)
    # torch's own stager knows no sharded tensors
    shards = [Shard(shard.tensor.detach().to("cpu", copy=True), shard.metadata) for shard in tensor.local_shards()]
    return ShardedTensor._init_from_local_shards_and_global_metadata(shards, tensor.metadata())  # noqa: SLF001  TorchRec's way


class Writer(StorageWriter):
    """Writes a folder; `state` are the plain values beside the tensors."""

    def __init__(self, folder: Path, state: Mapping[str, Any]) -> None:
        self.folder, self.state = folder, dict(state)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between writes."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001
        """An empty folder beside the place, before any rank writes."""
        del args, kwargs
        if is_coordinator:
            tensor_folder.fresh(self.folder)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """The parts that this rank writes, in one file."""
        parts: dict[str, Tensor] = {}
        for item in plan.items:
            value = planner.resolve_data(item)
            assert isinstance(value, Tensor), f"{item.index.fqn} is no tensor"
            parts[_key(item.index)] = value
        entry = tensor_folder.write_part(tensor_folder.beside_of(self.folder), world.rank(), parts)
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(item.index, parts[_key(item.index)].nbytes, entry) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """The index, the state and the manifest, and the folder in its place."""
        written = [result for part in results for result in part]
        files = {result.storage_data["file"]: result.storage_data for result in written}
        index = _index(metadata, {result.index: result.storage_data["file"] for result in written})
        tensor_folder.finish(self.folder, index, list(files.values()), self.state)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any path."""
        del checkpoint_id
        return True


class Reader(StorageReader):
    """Reads from a folder the parts that a rank asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[MetadataIndex, str] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between reads."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index as torch.distributed.checkpoint understands it."""
        del args, kwargs
        tensors: dict[str, Any] = {}
        files: dict[MetadataIndex, str] = {}
        for name, entry in tensor_folder.index(self.folder).items():
            chunks = [ChunkStorageMetadata(torch.Size(c["offsets"]), torch.Size(c["sizes"])) for c in entry["chunks"]]
            properties = TensorProperties(dtype=tensor_folder.DTYPES[entry["dtype"]])
            tensors[name] = TensorStorageMetadata(properties, torch.Size(entry["size"]), chunks)
            files |= {MetadataIndex(name, torch.Size(c["offsets"])): c["file"] for c in entry["chunks"]}
        return Metadata(state_dict_metadata=tensors, storage_data=files)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001
        """Remember which file holds what."""
        del is_coordinator, args, kwargs
        self.files = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy every part that is asked for into its place."""
        for item in plan.items:
            index = MetadataIndex(item.storage_index.fqn, torch.Size(item.storage_index.offset or ()))
            path = self.folder / self.files[index]
            part = tensor_folder.part(path, _key(index), item.storage_offsets, item.lengths)
            target = planner.resolve_tensor(item)
            target.detach().copy_(part.view(target.shape))
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any path."""
        del checkpoint_id
        return True


def _index(metadata: Metadata, files: Mapping[MetadataIndex, str]) -> dict[str, Any]:
    out = {}
    for name, about in metadata.state_dict_metadata.items():
        assert isinstance(about, TensorStorageMetadata), f"{name} is no tensor"
        chunks = [
            {
                "offsets": list(chunk.offsets),
                "sizes": list(chunk.sizes),
                "file": files[MetadataIndex(name, torch.Size(chunk.offsets))],
            }
            for chunk in about.chunks
        ]
        dtype = str(about.properties.dtype).removeprefix("torch.")
        out[name] = {"dtype": dtype, "size": list(about.size), "chunks": chunks}
    return out


def _key(index: MetadataIndex) -> str:
    return tensor_folder.key(index.fqn, list(index.offset or ()))
