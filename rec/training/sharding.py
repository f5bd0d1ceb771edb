"""Embedding tables over several processes: TorchRec's planner, its sharded collections, and what they hold.

    table_wise       a table on one rank                     column_wise      some columns of every row on each rank
    row_wise         some rows on each rank                  table_row_wise   a table on one machine, by rows
    data_parallel    a copy on every rank                    auto             what the planner finds quickest

Losses and weights do not depend on the plan. Where TorchRec leaves that open it is closed here:

    column_wise      a row-wise optimizer would keep an accumulator per row and part: another optimizer, so refused
    data_parallel    an optimizer fused into the backward pass never reaches such tables: they have one of their own
    row_wise on gloo needs ranks with equally many bags: shorter ranks are padded by empty ones
    table_row_wise   TorchRec makes groups of its own, which wait half an hour: they get the time-out of the others
    fresh weights    drawn by seed, table and row (rec/modules/embedding_tables.py), after tables are sharded
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rec import world
from rec.modules.embedding_tables import Slots, TableOptimizer, TablePart, draw, named
from rec.modules.fused_tables import OPTIMIZERS, configs, side_by_side, state_name
from rec.modules.layout import EmbeddingTable
from rec.training import torchrec_distributed as trd
from rec.training.id_exchange import IdExchange

Plan = trd.ShardingPlan
_BY_ROWS = ("row_wise", "table_row_wise")


class Collections(nn.Module):
    """The collections of all groups on torch's meta device: what is planned and sharded."""

    def __init__(self, tables: Mapping[str, EmbeddingTable], slots: Slots, *, half: bool) -> None:
        super().__init__()
        meta = torch.device("meta")
        self.collections = nn.ModuleDict(
            {
                group: trd.EmbeddingBagCollection(tables=configs(tables, keys, half=half), device=meta)
                for group, keys in slots.items()
            }
        )


class ShardedTables(nn.Module):
    """One sharded collection per group of keys that share a stride. Same signature as FusedTables."""

    def __init__(
        self,
        tables: Mapping[str, EmbeddingTable],
        slots: Slots,
        *,
        optimizer: TableOptimizer,
        plan: Plan,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.slots, self.optimizer = slots, optimizer
        bare = Collections(tables, slots, half=optimizer.half)
        copied = copied_tables(plan)
        fused = [p for name, p in bare.named_parameters() if named(name.split(".")[-2]) not in copied]
        # before DistributedModelParallel, which reads it from the parameters
        trd.apply_optimizer_in_backward(OPTIMIZERS[optimizer.name], fused, optimizer.settings())
        with trd.quiet():
            self.held = trd.DistributedModelParallel(
                bare, device=device, plan=plan, sharders=sharders(), init_data_parallel=False
            )
        world.limit_waits()
        by_rows = {table for table, kind in kinds(plan).items() if kind in _BY_ROWS and device.type == "cpu"}
        self.padded = {group for group, keys in slots.items() for _, table in keys if table in by_rows}
        self.copies = {
            named(name.split(".")[-2]): p
            for name, p in self.held.named_parameters()
            if named(name.split(".")[-2]) in copied
        }
        self.copies_optimizer = _own_optimizer(self.copies, optimizer)
        for part in self.parts():
            draw(part, seed)

    def forward(self, ids: Mapping[str, Sequence[Tensor]] | IdExchange) -> dict[str, Tensor]:
        """Rows for each group's keys side by side: {group: [M] of ids per key} -> {group: [M, sum of dims]}.

        `ids` may be on their way already (`send`). All ranks call together. What one group waits for, lengths, ids and
        rows, is on its way for all of them.
        """
        sent = ids if isinstance(ids, IdExchange) else self.send(ids)
        rows = {
            group: self.collection(group).compute_and_output_dist(context, features)
            for group, (context, features) in sent.arrived().items()
        }
        names = {group: [name for name, _ in self.slots[group]] for group in rows}
        return {group: side_by_side(row.wait(), names[group])[: sent.bags[group]] for group, row in rows.items()}

    def send(self, ids: Mapping[str, Sequence[Tensor]]) -> IdExchange:
        """Send {group: [M] of ids per key} to the ranks that hold their rows; all ranks call together."""
        names = {group: [name for name, _ in self.slots[group]] for group in ids}
        return IdExchange({group: self.collection(group) for group in ids}, names, ids, padded=self.padded)

    def collection(self, group: str) -> trd.ShardedEmbeddingBagCollection:
        """A group's sharded collection."""
        bare = self.held.module
        assert isinstance(bare, Collections)
        collection = bare.collections[group]
        assert isinstance(collection, trd.ShardedEmbeddingBagCollection)
        return collection

    def parts(self) -> Iterator[TablePart]:
        """What this rank holds of every table; of a copied one all of it."""
        states = self._states()
        for key, weight in self.held.state_dict().items():
            table = named(key.split(".")[-2])
            if not isinstance(weight, trd.ShardedTensor):
                yield TablePart(table, (weight.shape[0], weight.shape[1]), 0, 0, weight, self._copied_states(table))
                continue
            for index, shard in enumerate(weight.local_shards()):
                row, column = shard.metadata.shard_offsets
                held = {
                    state_name(name): state.local_shards()[index].tensor for name, state in states.get(key, {}).items()
                }
                yield TablePart(table, (weight.size(0), weight.size(1)), row, column, shard.tensor, held)

    def state(self) -> dict[str, Tensor]:
        """Every live weight and optimizer state: `tables.NAME`, `table_states.NAME.STATE`, sharded or whole."""
        out: dict[str, Tensor] = {}
        states = self._states()
        for key, weight in self.held.state_dict().items():
            table = named(key.split(".")[-2])
            out[f"tables.{table}"] = weight
            held = {state_name(name): state for name, state in states.get(key, {}).items()}
            if table in self.copies:
                held = self._copied_states(table)
            out |= {f"table_states.{table}.{name}": state for name, state in held.items()}
        return out

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of every table."""
        weights = self.held.state_dict().items()
        return {named(key.split(".")[-2]): (weight.size(0), weight.size(1)) for key, weight in weights}

    def set_lr(self, lr: float) -> None:
        """The step of the updates to come."""
        for group in [*self.held.fused_optimizer.param_groups, *self._own_groups()]:
            group["lr"] = lr
        self.held.fused_optimizer.step()  # hands the rate to the kernels, and updates nothing

    def step(self) -> None:
        """Update the copied tables, whose gradients are averaged over ranks first; the others were in backward."""
        if self.copies_optimizer is None:
            return
        for weight in self.copies.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            dist.all_reduce(weight.grad)
            weight.grad /= world.size()
        self.copies_optimizer.step()
        # in place: a slice of the gradient that the kernel keeps, and adds to
        self.copies_optimizer.zero_grad(set_to_none=False)

    def _own_groups(self) -> list[dict[str, Any]]:
        return [] if self.copies_optimizer is None else self.copies_optimizer.param_groups

    def _states(self) -> Mapping[str, Mapping[str, Any]]:
        return self.held.fused_optimizer.state_dict()["state"]

    def _copied_states(self, table: str) -> dict[str, Tensor]:
        if self.copies_optimizer is None:
            return {}
        state, rows = self.copies_optimizer.state[self.copies[table]], self.copies[table].shape[0]
        if "sum" not in state:
            return {}
        return {"momentum1": state["sum"].view(rows) if self.optimizer.by_row else state["sum"]}


class _Sharder(trd.EmbeddingBagCollectionSharder):
    """Sharding of bags, by rows on a CPU too."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Every kind there is; TorchRec lists those by rows for CUDA alone."""
        return sorted({*super().sharding_types(compute_device_type), "row_wise", "table_row_wise"})


def sharders() -> list[Any]:
    """TorchRec's sharders."""
    return [_Sharder()]


def kinds(plan: Plan) -> dict[str, str]:
    """{table: how it is sharded}."""
    return {
        named(table): str(sharding.sharding_type)
        for module in plan.plan.values()
        for table, sharding in module.items()  # pyright: ignore[reportAttributeAccessIssue]
    }


def copied_tables(plan: Plan) -> set[str]:
    """The tables that every rank has a copy of."""
    return {table for table, kind in kinds(plan).items() if kind == "data_parallel"}


def _own_optimizer(weights: Mapping[str, nn.Parameter], optimizer: TableOptimizer) -> torch.optim.Optimizer | None:
    if not weights:
        return None
    return OPTIMIZERS[optimizer.name](list(weights.values()), **optimizer.settings())  # pyright: ignore[reportArgumentType]
