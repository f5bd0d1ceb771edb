"""Id dropout: in training an id becomes unknown with some probability, so that the rows of unknown ids learn.

    [train] id_dropout = 0.05            every id and list of ids, but hours and weekdays
    [candidates] item_id.id_dropout      one feature's own share

Whether an id is dropped depends on the seed, the epoch, the request, the feature and the id's place in the request: on
no other request, and on no process. A list loses the ids that are dropped, since row 0 is its padding too.
Volkovs, Yu and Poutanen, DropoutNet: Addressing Cold Start in Recommender Systems, NeurIPS 2017.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rec.data.encoders import mix
from rec.request import RequestBatch
from rec.spec import Id, Ids, Spec
from rec.spec.features import CLOCKS


@dataclass(frozen=True)
class IdDropout:
    """The share of every feature's ids that is dropped in an epoch, by side and feature."""

    shares: Mapping[tuple[str, str], float]
    seed: int
    epoch: int

    def of(self, batch: RequestBatch, request_B: np.ndarray) -> RequestBatch:
        """A numpy batch with some ids at row 0; `request_B` tells its requests from all others of the epoch."""
        sides = {"context": dict(batch.context), "candidates": dict(batch.candidates)}
        place_N = np.arange(len(batch)) - batch.offsets()[batch.owner]
        places = {"context": np.zeros(batch.size, np.int64), "candidates": place_N}
        requests = {"context": request_B, "candidates": request_B[batch.owner]}
        for (side, name), share in self.shares.items():
            key = hashlib.blake2b(f"{self.seed} {self.epoch} {side} {name}".encode(), digest_size=8).digest()
            bits_M = mix(np.uint64(int.from_bytes(key)) + requests[side].astype(np.uint64))
            bits_M = mix(bits_M + places[side].astype(np.uint64))
            ids = sides[side][name]
            bits = bits_M if ids.ndim == 1 else mix(bits_M[:, None] + np.arange(ids.shape[1], dtype=np.uint64))
            sides[side][name] = np.where(bits >> np.uint64(11) < np.uint64(int(share * 2**53)), 0, ids)
        return replace(batch, **sides)


def create(spec: Spec, epoch: int) -> IdDropout | None:
    """What a spec drops in an epoch; None where it drops nothing."""
    shares = {
        (side, name): share
        for side, features in spec.sides()
        for name, f in features.items()
        if isinstance(f, Id | Ids) and f.make not in CLOCKS and not (isinstance(f, Id) and f.bias)
        if (share := spec.train.id_dropout if f.id_dropout is None else f.id_dropout)
    }
    return IdDropout(shares, spec.seed, epoch) if shares else None
