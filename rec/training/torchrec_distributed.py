"""The parts of TorchRec's sharding in use, imported in this one place, quietly, and only for several processes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rec.modules import torchrec as _checked  # noqa: F401  an installation that cannot work is refused there, in words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for noisy in ("torchrec.distributed.planner.storage_reservations", "torchrec.distributed.utils"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from torch.distributed._shard.sharded_tensor.api import ShardedTensor
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.planner.types import (
        HardwareConfig,
        KernelConfig,
        ParameterConstraints,
        PlannerError,
        Topology,
        TopologyFactory,
        TrainerConfig,
    )
    from torchrec.distributed.types import ShardingPlan
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

# what torch says to calls that are TorchRec's own
for about in ("`torch.distributed.", "`broadcast_buffers` is deprecated", "fbgemm::dense_embedding_codegen"):
    warnings.filterwarnings("ignore", message=about)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block nobody warns: what is said is about TorchRec's own calls, table by table."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


__all__ = [
    "DistributedModelParallel",
    "EmbeddingBagCollection",
    "EmbeddingBagCollectionSharder",
    "EmbeddingEnumerator",
    "EmbeddingShardingPlanner",
    "FixedPercentageStorageReservation",
    "HardwareConfig",
    "KernelConfig",
    "ParameterConstraints",
    "PlannerError",
    "ShardedEmbeddingBagCollection",
    "ShardedTensor",
    "ShardingPlan",
    "Topology",
    "TopologyFactory",
    "TrainerConfig",
    "apply_optimizer_in_backward",
    "quiet",
]
