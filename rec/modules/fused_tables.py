"""Embedding tables as TorchRec collections whose optimizer is fused into the backward pass.

A step costs what its ids cost, whatever the size of the tables: no dense gradient is ever made. The same collections
run on a CPU and on a CUDA device in one process, without a process group; over several processes they are sharded
(rec/training/sharding.py). Row-wise Adagrad keeps one number per row: Duchi et al., Adaptive Subgradient Methods, JMLR
2011, with one accumulator per row as in FBGEMM's EXACT_ROWWISE_ADAGRAD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from rec.modules.embedding_tables import OWN, Slots, TableOptimizer, TablePart, draw, named
from rec.modules.layout import EmbeddingTable
from rec.modules.torchrec import (
    DataType,
    EmbeddingBagConfig,
    FusedEmbeddingBagCollection,
    KeyedJaggedTensor,
    KeyedTensor,
    RowWiseAdagrad,
    SparseType,
)

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


class FusedTables(nn.Module):
    """One fused collection per group of keys that share a stride; every table is held whole."""

    def __init__(
        self,
        tables: Mapping[str, EmbeddingTable],
        slots: Slots,
        *,
        optimizer: TableOptimizer,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.slots = slots
        # by the kernel's own name: the collection does not hand on the type its tables are declared with
        extra = {"weights_precision": SparseType.FP16, "stochastic_rounding": True} if optimizer.half else {}
        self.collections = nn.ModuleDict(
            {
                group: FusedEmbeddingBagCollection(
                    configs(tables, keys),
                    OPTIMIZERS[optimizer.name],
                    optimizer.settings() | extra,
                    device=device,
                )
                for group, keys in slots.items()
            }
        )
        for part in self.parts():
            draw(part, seed)

    def forward(self, ids: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Rows for each group's keys side by side: {group: [M] of ids per key} -> {group: [M, sum of dims]}."""
        names = {group: [name for name, _ in self.slots[group]] for group in ids}
        return {g: side_by_side(self.collections[g](bags_of_one(names[g], of)), names[g]) for g, of in ids.items()}

    def _held(self) -> list[FusedEmbeddingBagCollection]:
        return [c for c in self.collections.values() if isinstance(c, FusedEmbeddingBagCollection)]

    def parts(self) -> Iterator[TablePart]:
        """Every table, whole, with the optimizer's state."""
        for collection in self._held():
            states = collection.fused_optimizer().state_dict()["state"]
            for key, weight in collection.state_dict().items():
                table = key.split(".")[1]
                held = {state_name(name): state for name, state in states.get(f"{table}.weight", {}).items()}
                yield TablePart(named(table), (weight.shape[0], weight.shape[1]), 0, 0, weight, held)

    def state(self) -> dict[str, Tensor]:
        """Every live weight and optimizer state: `tables.NAME`, `table_states.NAME.STATE`."""
        out: dict[str, Tensor] = {}
        for part in self.parts():
            out[f"tables.{part.table}"] = part.weight
            out |= {f"table_states.{part.table}.{name}": state for name, state in part.states.items()}
        return out

    def weights(self) -> dict[str, Tensor]:
        """Every table's weight [rows, dim], the live tensor itself."""
        return {part.table: part.weight for part in self.parts()}

    def accumulators(self) -> dict[str, Tensor]:
        """Every table's row-wise Adagrad sum of squares [rows], the live tensor itself."""
        return {part.table: next(iter(part.states.values())) for part in self.parts()}

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of every table."""
        return {part.table: part.shape for part in self.parts()}

    def set_lr(self, lr: float) -> None:
        """The step of the updates to come."""
        for collection in self._held():
            optimizer = collection.fused_optimizer()
            for group in list(optimizer.param_groups):
                group.update({"lr": lr})  # pyright: ignore[reportAttributeAccessIssue]
            optimizer.step()  # hands the rate to the kernels, and updates nothing

    def step(self) -> None:
        """Nothing is left to do: the backward pass updated every table."""


def configs(
    tables: Mapping[str, EmbeddingTable], keys: Sequence[tuple[str, str]], *, half: bool = False
) -> list[EmbeddingBagConfig]:
    """The tables that a group's keys look up, as TorchRec describes them."""
    users: dict[str, list[str]] = {}
    for name, table in keys:
        users.setdefault(table, []).append(name)
    return [
        EmbeddingBagConfig(
            name=OWN + t,
            num_embeddings=tables[t].rows,
            embedding_dim=tables[t].dim,
            feature_names=names,
            data_type=DataType.FP16 if half else DataType.FP32,
        )
        for t, names in users.items()
    ]


def state_name(key: str) -> str:
    """The name of an optimizer's state: whole and sharded collections spell it differently.

    >>> state_name("table_item.weight.momentum_1"), state_name("table_item.momentum1")
    ('momentum1', 'momentum1')
    """
    return key.rsplit(".", 1)[1].replace("_", "")


def bags_of_one(names: Sequence[str], ids: Sequence[Tensor], *, stride: int | None = None) -> KeyedJaggedTensor:
    """One [M] of ids per key as bags of one id; padded by empty bags to `stride` bags a key."""
    values = torch.cat(list(ids)) if len(ids) > 1 else ids[0]
    lengths = torch.ones(len(values), dtype=torch.int32, device=values.device)
    if stride is not None and stride > len(ids[0]):
        lengths = nn.functional.pad(lengths.view(len(names), -1), (0, stride - len(ids[0]))).view(-1)
    return KeyedJaggedTensor(keys=list(names), values=values, lengths=lengths)


def side_by_side(pooled: KeyedTensor, names: Sequence[str]) -> Tensor:
    """Rows by key, in the order of `names` [M, sum of dims]: the order inside a collection is its own affair."""
    return KeyedTensor.regroup([pooled], [list(names)])[0]
