"""Embedding tables: their optimizer, what a process holds of them, how they are drawn, and the plain form.

Nothing here needs TorchRec, which takes seconds to import; the tables that train are in rec/modules/fused_tables.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

_INIT_STD = 0.01
_BLOCK = 1 << 16  # rows that are drawn at a time
OWN = "table_"  # before a table's name, since a module has attributes called type, keys, train ...
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


def named(module: str) -> str:
    """A table's name from that of its module."""
    return module.removeprefix(OWN)


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
            {OWN + name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}
        )

    def weights(self) -> dict[str, Tensor]:
        """Every table's weight [rows, dim], the live tensor itself."""
        return {named(name): weight for name, weight in self.weight.items()}

    def forward(self, ids: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Rows for each group's keys side by side: {group: [M] of ids per key} -> {group: [M, sum of dims]}."""
        return {group: torch.cat(self._rows(group, of), 1) for group, of in ids.items()}

    def _rows(self, group: str, ids: Sequence[Tensor]) -> list[Tensor]:
        return [
            self.weight[OWN + table].index_select(0, x) for (_, table), x in zip(self.slots[group], ids, strict=True)
        ]
