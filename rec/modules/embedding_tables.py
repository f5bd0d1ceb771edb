"""Embedding tables as TorchRec collections with a row-wise Adagrad fused into the backward pass.

A step costs what its ids cost, whatever the size of the tables: no dense gradient is ever made, and the optimizer
keeps one number per row. The same collections run on a CPU and on a CUDA device in one process, without a process
group. Duchi et al., Adaptive Subgradient Methods, JMLR 2011, with one accumulator per row as in FBGEMM's
EXACT_ROWWISE_ADAGRAD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rec.modules.layout import EmbeddingTable
from rec.modules.torchrec import (
    EmbeddingBagConfig,
    FusedEmbeddingBagCollection,
    KeyedJaggedTensor,
    KeyedTensor,
    RowWiseAdagrad,
)

_INIT_STD = 0.01
_OWN = "table_"  # before a table's name, since a module has attributes called type, keys, train ...


class FusedTables(nn.Module):
    """One fused collection per group of keys that share a stride."""

    def __init__(
        self,
        tables: Mapping[str, EmbeddingTable],
        slots: Mapping[str, Sequence[tuple[str, str]]],
        *,
        lr: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.slots = slots
        self.collections = nn.ModuleDict(
            {g: _collection(tables, keys, lr=lr, device=device) for g, keys in slots.items()}
        )
        with torch.no_grad():
            for weight in self.weights().values():
                weight.normal_(0.0, _INIT_STD)
                weight[0] = 0.0

    def forward(self, group: str, ids: Sequence[Tensor]) -> Tensor:
        """Rows for a group's keys side by side: one [M] of ids per key -> [M, sum of dims]."""
        names = [name for name, _ in self.slots[group]]
        values = torch.cat(list(ids)) if len(ids) > 1 else ids[0]
        lengths = torch.ones(len(values), dtype=torch.int32, device=values.device)
        pooled = self.collections[group](KeyedJaggedTensor(keys=names, values=values, lengths=lengths))
        # by name: the order of columns inside a collection is its own affair
        return KeyedTensor.regroup([pooled], [names])[0]

    def _held(self) -> list[FusedEmbeddingBagCollection]:
        return [c for c in self.collections.values() if isinstance(c, FusedEmbeddingBagCollection)]

    def weights(self) -> dict[str, Tensor]:
        """Every table's weight [rows, dim], the live tensor itself."""
        return {
            key.split(".")[1].removeprefix(_OWN): weight
            for collection in self._held()
            for key, weight in collection.state_dict().items()
        }

    def accumulators(self) -> dict[str, Tensor]:
        """Every table's row-wise Adagrad sum of squares [rows], the live tensor itself."""
        out = {}
        for collection in self._held():
            for key, state in collection.fused_optimizer().state_dict()["state"].items():
                out[key.split(".")[0].removeprefix(_OWN)] = next(iter(state.values()))
        return out


def _collection(
    tables: Mapping[str, EmbeddingTable], keys: Sequence[tuple[str, str]], *, lr: float, device: torch.device
) -> FusedEmbeddingBagCollection:
    users: dict[str, list[str]] = {}
    for name, table in keys:
        users.setdefault(table, []).append(name)
    configs = [
        EmbeddingBagConfig(
            name=_OWN + t, num_embeddings=tables[t].rows, embedding_dim=tables[t].dim, feature_names=names
        )
        for t, names in users.items()
    ]
    return FusedEmbeddingBagCollection(configs, RowWiseAdagrad, {"lr": lr, "eps": 1e-8}, device=device)


class PlainTables(nn.Module):
    """The tables as plain weights: what is exported and read without TorchRec. Same signature as FusedTables."""

    def __init__(self, weights: Mapping[str, Tensor], slots: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        super().__init__()
        self.slots = slots
        self.weight = nn.ParameterDict(
            {_OWN + name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}
        )

    def weights(self) -> dict[str, Tensor]:
        """Every table's weight [rows, dim], the live tensor itself."""
        return {name.removeprefix(_OWN): weight for name, weight in self.weight.items()}

    def forward(self, group: str, ids: Sequence[Tensor]) -> Tensor:
        """Rows for a group's keys side by side: one [M] of ids per key -> [M, sum of dims]."""
        return torch.cat(
            [
                self.weight[_OWN + table].index_select(0, x)
                for (_, table), x in zip(self.slots[group], ids, strict=True)
            ],
            1,
        )
