"""From a RequestBatch to the model's two inputs: context [B, C] and candidate [N, D].

Ids are looked up in TorchRec tables whose row-wise optimizer is fused into the backward pass, so a step touches only
the rows it used. One collection serves all keys that have one stride:

    context      every table only context ids use       B bags of one
    candidates   every table only candidate ids use     N bags of one
    <table>      a table that lists or both sides use   all its ids, one after the other, as bags of one

Bags of one, because unpooled lookups take a slow kernel on CPUs. A list is the mean over its known ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec.fitted import Fitted, Scale
from rec.request import RequestBatch
from rec.spec import Id, Ids, Number, Spec

SIDES = ("context", "candidates")


@dataclass(frozen=True)
class Table:
    """An embedding table: `rows` vectors of width `dim`; row 0 is missing or unknown."""

    name: str
    rows: int
    dim: int


@dataclass(frozen=True)
class Lookup:
    """A feature that looks its rows up in a table; `many` when it is a list of ids."""

    side: str
    feature: str
    table: str
    many: bool


@dataclass(frozen=True)
class Layout:
    """All a module needs to know to embed a batch, in the order of its output columns."""

    tables: Mapping[str, Table]
    lookups: Sequence[Lookup]
    numbers: Mapping[str, Mapping[str, Scale]]

    def groups(self) -> dict[str, list[Lookup]]:
        """Lookups by the collection that serves them."""
        sides: dict[str, set[str]] = {}
        for look in self.lookups:
            sides.setdefault(look.table, set()).add("many" if look.many else look.side)
        out: dict[str, list[Lookup]] = {}
        for look in self.lookups:
            own = len(sides[look.table]) == 1 and not look.many
            out.setdefault(look.side if own else f"table_{look.table}", []).append(look)
        return out

    def slots(self) -> dict[str, list[tuple[str, str]]]:
        """Per group, its keys as (name, table): one per lookup, or one where all uses of a table are joined."""
        return {
            group: [(x.feature, x.table) for x in looks] if group in SIDES else [(looks[0].table, looks[0].table)]
            for group, looks in self.groups().items()
        }

    def width(self, side: str) -> int:
        """Columns of one side's input."""
        embedded = sum(self.tables[look.table].dim for look in self.lookups if look.side == side)
        return embedded + len(self.numbers[side])


def layout(spec: Spec, fitted: Fitted) -> Layout:
    """The layout of a spec whose vocabularies and scales are known."""
    rows = fitted.rows(spec)
    lookups, numbers = [], {}
    for side, features in spec.sides():
        ids = {name: f for name, f in features.items() if isinstance(f, Id | Ids)}
        lookups += [Lookup(side, name, spec.table_of(side, name), isinstance(f, Ids)) for name, f in ids.items()]
        numbers[side] = {name: fitted.scales[name] for name, f in features.items() if isinstance(f, Number)}
    tables = {name: Table(name, rows[name], feature.dim) for name, feature in spec.tables().items()}
    return Layout(tables, lookups, numbers)


class PlainTables(nn.Module):
    """The tables as plain weights: what is exported and read without TorchRec. Same signature as FusedTables."""

    def __init__(self, weights: Mapping[str, Tensor], slots: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        super().__init__()
        self.slots = slots
        self.weight = nn.ParameterDict(
            {name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}
        )

    def forward(self, group: str, ids: Sequence[Tensor]) -> Tensor:
        """Rows for a group's keys side by side: one [M] of ids per key -> [M, sum of dims]."""
        return torch.cat(
            [self.weight[table].index_select(0, x) for (_, table), x in zip(self.slots[group], ids, strict=True)], 1
        )


class Numbers(nn.Module):
    """Scaled numbers of one side [M, n]; where a number is missing (NaN), a weight of its own."""

    mean: Tensor
    std: Tensor
    log: Tensor

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.names = list(scales)
        self.register_buffer("mean", torch.tensor([s.mean for s in scales.values()], dtype=torch.float32))
        self.register_buffer("std", torch.tensor([s.std for s in scales.values()], dtype=torch.float32))
        self.register_buffer("log", torch.tensor([s.log for s in scales.values()], dtype=torch.bool))
        self.missing = nn.Parameter(torch.zeros(len(scales)))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """[M, n]."""
        x = torch.stack([values[name] for name in self.names], 1)
        known = ~x.isnan()
        x = torch.where(known, x, 0.0)
        x = torch.where(self.log, x.sign() * x.abs().log1p(), x)
        return torch.where(known, (x - self.mean) / self.std, self.missing)


class Embedded(nn.Module):
    """A RequestBatch as (context [B, C], candidate [N, D])."""

    def __init__(self, layout: Layout, tables: nn.Module) -> None:
        super().__init__()
        self.layout = layout
        self.groups = layout.groups()
        self.tables = tables
        self.numbers = nn.ModuleDict({side: Numbers(scales) for side, scales in layout.numbers.items() if scales})

    def forward(self, batch: RequestBatch) -> tuple[Tensor, Tensor]:
        """The two inputs, columns in the order of the layout: grouped lookups first, numbers last."""
        values = {"context": batch.context, "candidates": batch.candidates}
        rows = {"context": batch.size, "candidates": batch.owner.shape[0]}
        columns: dict[str, list[Tensor]] = {"context": [], "candidates": []}
        for group, looks in self.groups.items():
            if group in values:
                columns[group].append(self.tables(group, [values[group][x.feature] for x in looks]))
            else:
                for look, embedded in zip(looks, self._shared(group, looks, values), strict=True):
                    columns[look.side].append(embedded)
        for side, numbers in self.numbers.items():
            columns[side].append(numbers(values[side]))
        context, candidate = (self._joined(columns[side], rows[side], batch.owner) for side in columns)
        return context, candidate

    def _shared(self, group: str, looks: Sequence[Lookup], values: Mapping[str, Mapping[str, Tensor]]) -> list[Tensor]:
        """Every use of one table, looked up at once: all its ids one after the other."""
        ids = [values[look.side][look.feature] for look in looks]
        flat = torch.cat([x.flatten() for x in ids])
        parts = self.tables(group, [flat]).split([x.numel() for x in ids])
        return [_mean(x, part) if look.many else part for look, x, part in zip(looks, ids, parts, strict=True)]

    @staticmethod
    def _joined(columns: Sequence[Tensor], rows: int, owner: Tensor) -> Tensor:
        if not columns:
            return owner.new_zeros((rows, 0), dtype=torch.float32)
        return columns[0] if len(columns) == 1 else torch.cat(list(columns), 1)


def _mean(ids_ML: Tensor, embedded: Tensor) -> Tensor:
    """Mean over the known ids of each list [M, dim]; zeros for an empty list."""
    known_ML1 = (ids_ML != 0).unsqueeze(-1).to(embedded.dtype)
    lists_MLD = embedded.view(*ids_ML.shape, -1)
    return (lists_MLD * known_ML1).sum(1) / known_ML1.sum(1).clamp(min=1.0)
