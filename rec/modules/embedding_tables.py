"""Embedding tables as TorchRec collections whose optimizer is fused into the backward pass.

A step costs what its ids cost, whatever the size of the tables: no dense gradient is ever made. The same collections
run on a CPU and on a CUDA device in one process, without a process group; over several processes they are sharded
(rec/training/sharding.py). Row-wise Adagrad keeps one number per row: Duchi et al., Adaptive Subgradient Methods, JMLR
2011, with one accumulator per row as in FBGEMM's EXACT_ROWWISE_ADAGRAD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

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
_INIT_STD = 0.01
_BLOCK = 1 << 16  # rows that are drawn at a time
_OWN = "table_"  # before a table's name, since a module has attributes called type, keys, train ...
Slots = Mapping[str, Sequence[tuple[str, str]]]  # {group: (key, table) of each lookup}


@dataclass(frozen=True)
class TableOptimizer:
    """The optimizer of every table, by its name in `OPTIMIZERS`, its step, and the type weights are kept in."""

    name: str = "rowwise_adagrad"
    lr: float = 0.02
    half: bool = False  # fp16 with stochastic rounding

    @property
    def by_row(self) -> bool:
        """Whether there is one state per row, which then depends on all columns of it."""
        return self.name == "rowwise_adagrad"

    def settings(self) -> dict[str, float]:
        """What the optimizer is made with; only what FBGEMM reads."""
        return {"lr": self.lr} | ({} if self.name == "sgd" else {"eps": 1e-8})


@dataclass(frozen=True)
class TablePart:
    """The rows and columns of a table that a process holds; `weight` and `states` are the live tensors.

    `shape` is the whole table's. A state has a number per weight, or one per row.
    """

    table: str
    shape: tuple[int, int]
    row: int
    column: int
    weight: Tensor
    states: Mapping[str, Tensor] = field(default_factory=dict)


class StoredTables(Protocol):
    """Embedding tables that train, whole or sharded."""

    def parts(self) -> Iterator[TablePart]:
        """What this process holds of every table, with the optimizer's state."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Every live weight and optimizer state as a checkpoint holds it: `tables.NAME`, `table_states.NAME.STATE`."""
        ...

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of every table."""
        ...

    def set_lr(self, lr: float) -> None:
        """The step of the updates to come."""
        ...

    def step(self) -> None:
        """Update what the backward pass did not."""
        ...


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

    def forward(self, group: str, ids: Sequence[Tensor]) -> Tensor:
        """Rows for a group's keys side by side: one [M] of ids per key -> [M, sum of dims]."""
        names = [name for name, _ in self.slots[group]]
        return side_by_side(self.collections[group](bags_of_one(names, ids)), names)

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
            name=_OWN + t,
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


def named(module: str) -> str:
    """A table's name from that of its module."""
    return module.removeprefix(_OWN)


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


@torch.no_grad()
def draw(part: TablePart, seed: int, *, epoch: int = 1) -> None:
    """Fresh weights: a value depends on seed, epoch, the table's name and its place there, not on who holds it."""
    if part.weight.is_meta:
        return
    rows, columns = part.weight.shape
    for block in range(part.row // _BLOCK, (part.row + rows - 1) // _BLOCK + 1 if rows else 0):
        key = f"{seed} {part.table} {block}" if epoch == 1 else f"{seed} {part.table} {block} {epoch}"
        digest = hashlib.blake2b(key.encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        first = block * _BLOCK
        drawn = torch.empty(min(_BLOCK, part.shape[0] - first), part.shape[1]).normal_(
            0.0, _INIT_STD, generator=generator
        )
        if block == 0:
            drawn[0] = 0.0
        start, stop = max(first, part.row), min(first + len(drawn), part.row + rows)
        mine = drawn[start - first : stop - first, part.column : part.column + columns]
        part.weight[start - part.row : stop - part.row].copy_(mine)


class PlainTables(nn.Module):
    """The tables as plain weights: what is exported and read without TorchRec. Same signature as FusedTables."""

    def __init__(self, weights: Mapping[str, Tensor], slots: Slots) -> None:
        super().__init__()
        self.slots = slots
        self.weight = nn.ParameterDict(
            {_OWN + name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}
        )

    def weights(self) -> dict[str, Tensor]:
        """Every table's weight [rows, dim], the live tensor itself."""
        return {named(name): weight for name, weight in self.weight.items()}

    def forward(self, group: str, ids: Sequence[Tensor]) -> Tensor:
        """Rows for a group's keys side by side: one [M] of ids per key -> [M, sum of dims]."""
        return torch.cat(
            [
                self.weight[_OWN + table].index_select(0, x)
                for (_, table), x in zip(self.slots[group], ids, strict=True)
            ],
            1,
        )
