"""From a RequestBatch to the model's Inputs: context [B, C], candidate [N, D], and histories to attend to.

Ids are looked up in TorchRec tables whose row-wise optimizer is fused into the backward pass, so a step touches only
the rows it used. One collection serves all keys that have one stride:

    context      every table only context ids use       B bags of one
    candidates   every table only candidate ids use     N bags of one
    <table>      a table that lists or both sides use   all its ids, one after the other, as bags of one

Numbers in buckets are looked up like ids; other numbers, and vectors, are columns as they come.

Bags of one, because unpooled lookups take a slow kernel on CPUs. A list is the mean over its known ids; a list of the
context that shares a table with a candidate's id is also a history which a model can attend to. Where a model wants
several embeddings of every id, they lie side by side in one row of the table: as many lookups, wider rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec.fitted import Fitted, Scale
from rec.inputs import Inputs, Past, Shape
from rec.request import RequestBatch
from rec.spec import Id, Ids, Number, Spec, Vector, has_rows

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
class History:
    """Lists of the context that tell of the same steps, each with the candidate's id to compare it with."""

    lists: Sequence[str]
    queries: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """All a module needs to know to embed a batch, in the order of its output columns."""

    tables: Mapping[str, Table]
    lookups: Sequence[Lookup]
    numbers: Mapping[str, Mapping[str, Scale]]
    vectors: Mapping[str, Mapping[str, int]]
    histories: Sequence[History] = ()
    copies: int = 1

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

    def stored(self) -> dict[str, Table]:
        """The tables as they are kept: every copy of an embedding in one row."""
        return {name: Table(name, t.rows, t.dim * self.copies) for name, t in self.tables.items()}

    def shape(self) -> Shape:
        """The width of every column of one copy of the Inputs."""
        widths: dict[str, list[int]] = {side: [] for side in SIDES}
        for looks in self.groups().values():
            for look in looks:
                widths[look.side].append(self.tables[look.table].dim)
        for side, scales in self.numbers.items():
            widths[side] += [1] * len(scales) + list(self.vectors[side].values())
        table = {look.feature: look.table for look in self.lookups}
        steps = [sum(self.tables[table[name]].dim for name in history.lists) for history in self.histories]
        return Shape(widths["context"], widths["candidates"], steps)


def layout(spec: Spec, fitted: Fitted, *, copies: int = 1, attended: Sequence[History] = ()) -> Layout:
    """The layout of a spec whose vocabularies and scales are known; `attended` are histories a model looks into."""
    rows = fitted.rows(spec)
    lookups, numbers, vectors = [], {}, {}
    for side, features in spec.sides():
        ids = {name: f for name, f in features.items() if has_rows(f)}
        lookups += [Lookup(side, name, spec.table_of(side, name), isinstance(f, Ids)) for name, f in ids.items()]
        plain = [name for name, f in features.items() if isinstance(f, Number) and not has_rows(f)]
        numbers[side] = {name: fitted.scales[name] for name in plain}
        vectors[side] = {name: f.size for name, f in features.items() if isinstance(f, Vector)}
    tables = {name: Table(name, rows[name], feature.dim) for name, feature in spec.tables().items()}
    return Layout(tables, lookups, numbers, vectors, attended, copies)


def histories(spec: Spec) -> list[History]:
    """The lists a candidate can attend to: they share a table with one of its ids.

    Histories of the same events, such as the items clicked and their categories, are one history of wider steps.
    """
    queries = {
        spec.table_of("candidates", name): name for name, f in reversed(spec.candidates.items()) if isinstance(f, Id)
    }
    together: dict[object, list[tuple[str, str]]] = {}
    for name, feature in spec.context.items():
        if isinstance(feature, Ids) and (query := queries.get(spec.table_of("context", name))):
            events = (feature.task, feature.last) if feature.make == "history" else name
            together.setdefault(events, []).append((name, query))
    return [History(*zip(*pairs, strict=True)) for pairs in together.values()]


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


class Vectors(nn.Module):
    """Vectors of one side, side by side [M, sum of sizes]; where a number is missing (NaN), a weight of its own."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.names = list(sizes)
        self.missing = nn.Parameter(torch.zeros(sum(sizes.values())))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """[M, sum of sizes]."""
        x = torch.cat([values[name] for name in self.names], 1)
        return torch.where(x.isnan(), self.missing, x)


class Embedded(nn.Module):
    """A RequestBatch as Inputs."""

    def __init__(self, layout: Layout, tables: nn.Module) -> None:
        super().__init__()
        self.layout = layout
        self.groups = layout.groups()
        self.tables = tables
        self.numbers = nn.ModuleDict({side: Numbers(scales) for side, scales in layout.numbers.items() if scales})
        self.vectors = nn.ModuleDict({side: Vectors(sizes) for side, sizes in layout.vectors.items() if sizes})
        self.attended = {name for history in layout.histories for name in (*history.lists, *history.queries)}

    def forward(self, batch: RequestBatch) -> Inputs:
        """The two sides, columns in the order of `Layout.shape`: grouped lookups, numbers, vectors."""
        values = {"context": batch.context, "candidates": batch.candidates}
        rows = {"context": batch.size, "candidates": batch.owner.shape[0]}
        columns: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        kept: dict[str, Tensor] = {}
        for group, looks in self.groups.items():
            if group in values:
                joined = self.tables(group, [values[group][x.feature] for x in looks])
                columns[group].append(self._copies(joined, [self.layout.tables[x.table].dim for x in looks]))
            else:
                for look, embedded in zip(looks, self._shared(group, looks, values, kept), strict=True):
                    columns[look.side].append(embedded)
        for plain in (self.numbers, self.vectors):
            for side, numbers in plain.items():
                columns[side].append(self._same(numbers(values[side])))
        context, candidate = (self._joined(columns[side], rows[side], batch.owner) for side in SIDES)
        return Inputs(context, candidate, batch.owner, self._pasts(batch, kept))

    def _shared(
        self,
        group: str,
        looks: Sequence[Lookup],
        values: Mapping[str, Mapping[str, Tensor]],
        kept: dict[str, Tensor],
    ) -> list[Tensor]:
        """Every use of one table, looked up at once: all its ids one after the other; `kept` holds what is attended."""
        ids = [values[look.side][look.feature] for look in looks]
        flat = self.tables(group, [torch.cat([x.flatten() for x in ids])])
        split = self._copies(flat, [self.layout.tables[looks[0].table].dim]).split([x.numel() for x in ids], -2)
        out = []
        for look, x, part in zip(looks, ids, split, strict=True):
            lists = part.unflatten(-2, tuple(x.shape))
            if look.feature in self.attended:
                kept[look.feature] = lists
            out.append(_mean(x, lists) if look.many else lists)
        return out

    def _pasts(self, batch: RequestBatch, kept: Mapping[str, Tensor]) -> list[Past]:
        out = []
        for history in self.layout.histories:
            known = torch.stack([batch.context[name] != 0 for name in history.lists]).any(0)
            steps = torch.cat([kept[name] for name in history.lists], -1)
            out.append(Past(steps, known, torch.cat([kept[name] for name in history.queries], -1)))
        return out

    def _copies(self, joined: Tensor, dims: Sequence[int]) -> Tensor:
        """Rows of wide tables [M, sum of U * dim] as one tensor per copy [U, M, sum of dim]; [M, ...] when U is 1."""
        copies = self.layout.copies
        if copies == 1:
            return joined
        parts = joined.split([copies * dim for dim in dims], 1)
        return torch.cat([part.unflatten(1, (copies, -1)) for part in parts], 2).transpose(0, 1)

    def _same(self, numbers: Tensor) -> Tensor:
        """A number is what it is in every copy."""
        return numbers if self.layout.copies == 1 else numbers.expand(self.layout.copies, -1, -1)

    def _joined(self, columns: Sequence[Tensor], rows: int, owner: Tensor) -> Tensor:
        if not columns:
            shape = (rows, 0) if self.layout.copies == 1 else (self.layout.copies, rows, 0)
            return owner.new_zeros(shape, dtype=torch.float32)
        return columns[0] if len(columns) == 1 else torch.cat(list(columns), -1)


def _mean(ids_ML: Tensor, lists_MLD: Tensor) -> Tensor:
    """Mean over the known ids of each list [.., M, dim]; zeros for an empty list."""
    known_ML1 = (ids_ML != 0).unsqueeze(-1).to(lists_MLD.dtype)
    return (lists_MLD * known_ML1).sum(-2) / known_ML1.sum(-2).clamp(min=1.0)
