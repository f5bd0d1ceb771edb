"""Memory and traffic of a sharding plan, per rank, from the parts of tables it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rec import ranker
from rec.data import preprocessor, splits
from rec.modules.embedding_tables import TableOptimizer, named
from rec.modules.layout import EmbeddingTable, Layout
from rec.spec import Spec
from rec.training.planning import Cluster, lengths, per_step, plan, strides, users_of
from rec.training.sharding import Plan, kinds

_IDS = 8  # bytes of an id
_STATE = {"rowwise_adagrad": "rows", "adagrad": "weights", "sgd": "", "adam": "twice"}


def estimate(spec: Spec, data: Path, cluster: Cluster) -> PlanCost:
    """What the planner's plan for a spec and its session tables asks of each rank of a cluster."""
    splits.digest(data)  # DataError where there are none
    layout = ranker.layout_of(spec, preprocessor.load(spec, data / "fitted"))
    optimizer = ranker.table_optimizer(spec.train)
    bags = strides(layout, *per_step(spec, data), lengths=lengths(spec))
    sharding = plan(layout, bags, spec.train.sharding, optimizer, cluster)
    dense = ranker.dense_weights(spec, preprocessor.load(spec, data / "fitted"))
    return cost(sharding, layout, bags, optimizer, cluster, dense=dense)


@dataclass(frozen=True)
class TableCost:
    """A table under a plan; `traffic` are bytes sent by one rank in a step.

    `on_host`: it lies in the host's memory, and a part of it is cached on the device.
    """

    table: str
    rows: int
    dim: int
    kind: str
    on_host: bool
    ranks: tuple[int, ...]
    bytes: int
    traffic: int


@dataclass(frozen=True)
class PlanCost:
    """What a plan asks of every rank: bytes on its device and in its host's memory [W], bytes sent in a step."""

    tables: tuple[TableCost, ...]
    memory: tuple[int, ...]
    host: tuple[int, ...]
    traffic: int
    dense: int


def cost(
    plan: Plan,
    layout: Layout,
    strides: Mapping[str, int],
    optimizer: TableOptimizer,
    cluster: Cluster,
    *,
    dense: int,
) -> PlanCost:
    """Memory and traffic of a plan; `dense` are the weights outside the tables, with AdamW's two moments each."""
    memory, host, tables = [dense * 4 * 4] * cluster.size, [0] * cluster.size, []
    for table, kind in kinds(plan).items():
        stored = layout.stored()[table]
        group, users = users_of(layout, table)
        lookups = strides[group] * len(users)
        parts, on_host = _parts(plan, table, stored, cluster.size)
        for rank, (rows, columns) in parts:
            (host if on_host else memory)[rank] += rows * columns * (2 if optimizer.half else 4) + _state_bytes(
                optimizer, rows, columns
            )
        held = sum(rows * columns for _, (rows, columns) in parts) * (2 if optimizer.half else 4)
        ranks = tuple(sorted({rank for rank, _ in parts}))
        sent = _traffic(kind, stored, lookups, cluster)
        tables.append(TableCost(table, stored.rows, stored.dim, kind, on_host, ranks, held, sent))
    share = 2 * (cluster.size - 1) / cluster.size
    traffic = sum(table.traffic for table in tables)
    return PlanCost(tuple(tables), tuple(memory), tuple(host), traffic, round(dense * 4 * share))


def _parts(plan: Plan, table: str, stored: EmbeddingTable, size: int) -> tuple[list[tuple[int, tuple[int, int]]], bool]:
    """(rank, (rows, columns)) of every part, and whether they lie in the host's memory while ranks have devices."""
    for module in plan.plan.values():
        for key, sharding in module.items():  # pyright: ignore[reportAttributeAccessIssue]
            if named(key) != table:
                continue
            if sharding.sharding_spec is None:
                return [(rank, (stored.rows, stored.dim)) for rank in range(size)], False
            shards = sharding.sharding_spec.shards
            parts = [(shard.placement.rank(), (shard.shard_sizes[0], shard.shard_sizes[1])) for shard in shards]
            return parts, "uvm" in str(sharding.compute_kernel)
    raise AssertionError(table)


def _state_bytes(optimizer: TableOptimizer, rows: int, columns: int) -> int:
    return {"": 0, "rows": rows, "weights": rows * columns, "twice": 2 * rows * columns}[_STATE[optimizer.name]] * 4


def _traffic(kind: str, stored: EmbeddingTable, lookups: int, cluster: Cluster) -> int:
    """Bytes that one rank sends in a step: ids to where rows are, rows back, gradients of rows there again.

    By rows, a pooled collection adds up one partial result from every rank: each sends all bags of the whole batch.
    """
    away, mine, row = (cluster.size - 1) / cluster.size, lookups / cluster.size, stored.dim * 4
    if kind == "data_parallel":
        return round(2 * away * stored.rows * row)
    rows = lookups if kind in ("row_wise", "table_row_wise") else mine
    return round(away * (mine * _IDS + rows * row + rows * row))
