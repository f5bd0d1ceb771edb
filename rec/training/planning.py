"""How embedding tables are divided over ranks: TorchRec's planner, for this cluster or a hypothetical one.

A plan is for a world (so many ranks, so many of them on one machine), a kind of device and the lookups of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import psutil
import torch
import torch.distributed as dist

from rec import ranker, world
from rec.data import loader
from rec.errors import SpecError, nearest
from rec.modules.embedding_tables import TableOptimizer
from rec.modules.fused_tables import OPTIMIZERS
from rec.modules.layout import Layout
from rec.spec import Ids, Sharding, Spec
from rec.spec.training import ShardingKind
from rec.training import launch
from rec.training import torchrec_distributed as trd
from rec.training.sharding import Collections, Plan, ShardedTables, sharders
from rec.training.step import device_of

KINDS = tuple(kind for kind in get_args(ShardingKind) if kind != "auto")
_GIB = 1 << 30
_KEPT_FREE = 0.15  # share of a device's memory, for activations, dense weights and ids


@dataclass(frozen=True)
class Device:
    """A kind of device that ranks train on: bytes it holds, and bytes a second of memory, between neighbours, out."""

    name: str
    kind: str
    memory: int
    memory_bandwidth: float
    near_bandwidth: float
    far_bandwidth: float


# what makers publish: HBM size and bandwidth, NVLink per direction, one 400 Gb/s (a100: 200) network port per device
DEVICES = {
    "a100": Device("a100", "cuda", 80 * _GIB, 2.0e12, 300e9, 25e9),
    "h100": Device("h100", "cuda", 80 * _GIB, 3.35e12, 450e9, 50e9),
    "h200": Device("h200", "cuda", 141 * _GIB, 4.8e12, 450e9, 50e9),
}


@dataclass(frozen=True)
class Cluster:
    """So many ranks, `local` of them on one machine, each with one device."""

    size: int
    local: int
    device: Device

    def topology(self) -> trd.Topology:
        """As a TorchRec Topology."""
        device, on_cpu = self.device, self.device.kind == "cpu"
        hardware = trd.HardwareConfig(
            hbm_cap_bytes=None if on_cpu else device.memory,
            ddr_cap_bytes=device.memory if on_cpu else None,
            hbm_mem_bw=None if on_cpu else device.memory_bandwidth / 1000,
            ddr_mem_bw=device.memory_bandwidth / 1000 if on_cpu else None,
            intra_host_bw=device.near_bandwidth / 1000,
            inter_host_bw=device.far_bandwidth / 1000,
        )
        return trd.TopologyFactory.create_topology(
            trd.TrainerConfig(world_size=self.size, local_world_size=min(self.local, self.size)),
            hardware,
            trd.KernelConfig(compute_device=device.kind),
        )


def sharded(spec: Spec, data: Path) -> ranker.Tables:
    """What makes a layout's tables, sharded over the ranks that are here."""

    def make(layout: Layout) -> ShardedTables:
        optimizer, device = ranker.table_optimizer(spec.train), device_of(spec.train)
        bags = strides(layout, *per_step(spec, data), lengths=lengths(spec))
        sharding = plan(layout, bags, spec.train.sharding, optimizer, here(world.size(), device))
        stored, slots = layout.stored(), layout.slots()
        return ShardedTables(stored, slots, optimizer=optimizer, plan=sharding, device=device, seed=spec.seed)

    return make


def per_step(spec: Spec, data: Path) -> tuple[float, float]:
    """The requests and candidates of a step over all ranks, by the training split's mean."""
    requests, candidates = loader.counts(data, spec)
    return spec.train.batch * requests / max(1, candidates), float(spec.train.batch)


def lengths(spec: Spec) -> dict[str, int]:
    """The length of every padded list of ids."""
    return {name: f.last for _, features in spec.sides() for name, f in features.items() if isinstance(f, Ids)}


def here(size: int, device: torch.device) -> Cluster:
    """The ranks that run now."""
    local = launch.local_world_size(size)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        known = [d for name, d in DEVICES.items() if name in properties.name.lower()] or [DEVICES["a100"]]
        own = Device(properties.name, "cuda", properties.total_memory, *_speeds(known[0]))
        return Cluster(size, local, own)
    return Cluster(size, local, _cpu(psutil.virtual_memory().total // local))


def asked_for(size: int, name: str, local: int = 8) -> Cluster:
    """A cluster of devices of that name, which need not be here; SpecError where it is unknown."""
    if name == "cpu":
        return Cluster(size, min(local, size), _cpu(psutil.virtual_memory().total // min(local, size)))
    if name not in DEVICES:
        raise SpecError(f"--device: {name!r} is not known: cpu, {', '.join(DEVICES)}{nearest(name, DEVICES)}")
    return Cluster(size, min(local, size), DEVICES[name])


def strides(layout: Layout, requests: float, candidates: float, *, lengths: Mapping[str, int]) -> dict[str, int]:
    """{group: bags per key in a step} of `requests` and `candidates`; `lengths` are those of lists of ids."""
    sides = {"context": requests, "candidates": candidates}
    out = {}
    for group, lookups in layout.groups().items():
        bags = sides.get(group) or sum(sides[x.side] * lengths.get(x.feature, 1) for x in lookups)
        out[group] = max(1, round(bags))
    return out


def plan(
    layout: Layout, strides: Mapping[str, int], sharding: Sharding, optimizer: TableOptimizer, cluster: Cluster
) -> Plan:
    """The quickest plan that TorchRec's planner finds within the spec's wishes and the devices' memory.

    Raises SpecError where no plan fits.
    """
    wishes = _wishes(layout, sharding, optimizer, {group: bags // cluster.size for group, bags in strides.items()})
    constraints = {
        f"table_{table}": trd.ParameterConstraints(
            sharding_types=list(allowed),
            min_partition=4,
            pooling_factors=[1.0] * len(users),
            num_poolings=[1.0] * len(users),
            batch_sizes=[max(1, strides[group] // cluster.size)] * len(users),
        )
        for table, allowed in wishes.items()
        for group, users in [users_of(layout, table)]
    }
    try:
        with trd.quiet():
            topology = cluster.topology()
            planner = trd.EmbeddingShardingPlanner(
                topology=topology,
                enumerator=_InOrder(topology, batch_size=1, constraints=constraints),  # batch sizes are in constraints
                constraints=constraints,
                storage_reservation=trd.FixedPercentageStorageReservation(_KEPT_FREE),
                debug=False,
            )
            bare = Collections(layout.stored(), layout.slots(), half=optimizer.half)
            trd.apply_optimizer_in_backward(OPTIMIZERS[optimizer.name], list(bare.parameters()), optimizer.settings())
            # rank 0 plans and tells the others, whose machines may differ
            if world.size() == cluster.size > 1:
                return planner.collective_plan(bare, sharders(), dist.GroupMember.WORLD)
            return planner.plan(bare, sharders())
    except trd.PlannerError as error:
        raise SpecError(f"train.sharding: no plan fits {cluster.size} x {cluster.device.name}: {error}") from None


class _InOrder(trd.EmbeddingEnumerator):
    """The ways to shard a table, in one order; TorchRec takes that of a set, and the first of equally quick plans.

    So one machine, where `row_wise` and `table_row_wise` are the same, had either of them from run to run.
    """

    def _filter_sharding_types(self, name: str, allowed_sharding_types: list[str], sharder_key: str = "") -> list[str]:
        return sorted(super()._filter_sharding_types(name, allowed_sharding_types, sharder_key))

    def _filter_compute_kernels(self, name: str, allowed_compute_kernels: list[str], sharding_type: str) -> list[str]:
        return sorted(super()._filter_compute_kernels(name, allowed_compute_kernels, sharding_type))


def _wishes(
    layout: Layout, sharding: Sharding, optimizer: TableOptimizer, mine: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """{table: how it may be sharded}; `mine` are the lookups of a rank in a step, by group.

    A table with fewer rows than that is copied where nothing else is asked for: adding up the gradients of all rows
    sends less than the rows that are looked up.
    """
    any_kind = tuple(k for k in KINDS if not (optimizer.by_row and k == "column_wise"))
    out = {}
    for table in layout.tables:
        wish = sharding.tables.get(table, sharding.default)
        few = layout.tables[table].rows <= mine[users_of(layout, table)[0]]
        out[table] = (wish,) if wish != "auto" else ("data_parallel",) if few else any_kind
    return out


def users_of(layout: Layout, table: str) -> tuple[str, list[str]]:
    """The group that a table belongs to, and its keys there."""
    for group, keys in layout.slots().items():
        users = [key for key, of in keys if of == table]
        if users:
            return group, users
    raise AssertionError(table)


def _cpu(memory: int) -> Device:
    """The machine at hand: bandwidths are what TorchRec takes for a CPU and for processes on one machine."""
    return Device("cpu", "cpu", memory, 51e9, 12e9, 3e9)


def _speeds(device: Device) -> tuple[float, float, float]:
    return device.memory_bandwidth, device.near_bandwidth, device.far_bandwidth
