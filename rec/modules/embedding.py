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

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from rec.modules.dense import Numbers, Vectors
from rec.modules.inputs import AttendedHistory, Inputs
from rec.modules.layout import SIDES, Layout
from rec.request import RequestBatch


class InputEmbedding(nn.Module):
    """A RequestBatch as Inputs."""

    def __init__(self, layout: Layout, tables: nn.Module) -> None:
        super().__init__()
        self.layout = layout
        self.groups = layout.groups()
        self.tables = tables
        self.numbers = nn.ModuleDict({side: Numbers(scales) for side, scales in layout.numbers.items() if scales})
        self.vectors = nn.ModuleDict({side: Vectors(sizes) for side, sizes in layout.vectors.items() if sizes})
        self.attended = {name for history in layout.histories for name in (*history.lists, *history.queries)}

    def ids(self, batch: RequestBatch) -> dict[str, list[Tensor]]:
        """What is looked up in a batch, {group: [M] of ids per key}."""
        # every use of a shared table at once: all its ids one after the other
        return {
            group: ids if group in SIDES else [torch.cat([part.flatten() for part in ids])]
            for group, ids in self._used(batch).items()
        }

    def lookup(self, batch: RequestBatch, sent: object | None = None) -> dict[str, Tensor]:
        """The rows of tables that a batch needs, a row per request or candidate: [B, ..] and [N, ..].

        By group where a group's tables are its own; `side.feature` where a table is shared, with a list's length
        before the width: [B, L, dim]. `sent` are its ids, where sharded tables have sent them already.
        """
        used = self._used(batch)
        rows: dict[str, Tensor] = {}
        for group, joined in self.tables(self.ids(batch) if sent is None else sent).items():
            if group in SIDES:
                rows[group] = joined
                continue
            parts = joined.split([x.numel() for x in used[group]])
            for lookup, x, part in zip(self.groups[group], used[group], parts, strict=True):
                rows[f"{lookup.side}.{lookup.feature}"] = part.unflatten(0, tuple(x.shape))
        return rows

    def _used(self, batch: RequestBatch) -> dict[str, list[Tensor]]:
        values = {"context": batch.context, "candidates": batch.candidates}
        return {group: [values[x.side][x.feature] for x in lookups] for group, lookups in self.groups.items()}

    def forward(self, batch: RequestBatch, rows: Mapping[str, Tensor] | None = None) -> Inputs:
        """The two sides, columns in the order of `Layout.shape`: grouped lookups, numbers, vectors.

        `rows` are what `lookup` gave for these requests, where it was called before.
        """
        rows = self.lookup(batch) if rows is None else rows
        values = {"context": batch.context, "candidates": batch.candidates}
        sizes = {"context": batch.size, "candidates": batch.owner.shape[0]}
        columns: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        steps: dict[str, Tensor] = {}
        for group, lookups in self.groups.items():
            if group in values:
                columns[group].append(self._copies(rows[group], [self.layout.tables[x.table].dim for x in lookups]))
                continue
            for lookup in lookups:
                embedded = self._copies_of_one(rows[f"{lookup.side}.{lookup.feature}"])
                if lookup.feature in self.attended:
                    steps[lookup.feature] = embedded
                ids = values[lookup.side][lookup.feature]
                columns[lookup.side].append(_mean(ids, embedded) if lookup.many else embedded)
        for plain in (self.numbers, self.vectors):
            for side, numbers in plain.items():
                columns[side].append(self._same(numbers(values[side])))
        context, candidate = (self._joined(columns[side], sizes[side], batch.owner) for side in SIDES)
        return Inputs(context, candidate, batch.owner, self._pasts(batch, steps))

    def by_feature(self, batch: RequestBatch, rows: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor, Tensor]]:
        """(side, feature, ids [..], rows [.., dim of all copies]) of every use of a table."""
        values = {"context": batch.context, "candidates": batch.candidates}
        for group, lookups in self.groups.items():
            dims = [self.layout.copies * self.layout.tables[x.table].dim for x in lookups]
            parts = rows[group].split(dims, 1) if group in values else [rows[f"{x.side}.{x.feature}"] for x in lookups]
            for x, part in zip(lookups, parts, strict=True):
                yield x.side, x.feature, values[x.side][x.feature], part

    def _pasts(self, batch: RequestBatch, embedded: Mapping[str, Tensor]) -> list[AttendedHistory]:
        out = []
        for history in self.layout.histories:
            known = torch.stack([batch.context[name] != 0 for name in history.lists]).any(0)
            steps = torch.cat([embedded[name] for name in history.lists], -1)
            out.append(AttendedHistory(steps, known, torch.cat([embedded[name] for name in history.queries], -1)))
        return out

    def _copies(self, joined: Tensor, dims: Sequence[int]) -> Tensor:
        """Rows of wide tables [M, sum of U * dim] as one tensor per copy [U, M, sum of dim]; [M, ...] when U is 1."""
        copies = self.layout.copies
        if copies == 1:
            return joined
        parts = joined.split([copies * dim for dim in dims], 1)
        return torch.cat([part.unflatten(1, (copies, -1)) for part in parts], 2).transpose(0, 1)

    def _copies_of_one(self, rows: Tensor) -> Tensor:
        """Rows of one wide table [.., U * dim] as one tensor per copy [U, .., dim]; [.., dim] when U is 1."""
        copies = self.layout.copies
        return rows if copies == 1 else rows.unflatten(-1, (copies, -1)).movedim(-2, 0)

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
