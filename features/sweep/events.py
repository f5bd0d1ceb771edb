"""What goes into a sweep and what comes out of it: events, requests, answers, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from features.transforms.counters import Per

Rows = Mapping[Per, np.ndarray]


@dataclass(frozen=True)
class Events:
    """Impressions [E] in any order: `time` in microseconds, `place` in their log, and outcomes [tasks, E] int8.

    `keys` are the rows of the keys they are counted by [E] int32; `people` those of users [E], and `values` what a
    history holds of them [E] int64 and whether it holds anything [E] bool, by the name of the history; `numbers` are
    those of columns as `value_totals.fixed` has them [E] int64, and shares of requests as `request_shares` has them;
    `request` [E] int64 says which are of one request, where later ones may change that.
    """

    time: np.ndarray
    place: np.ndarray
    labels: np.ndarray
    keys: Rows
    people: np.ndarray | None = None
    values: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict[str, tuple[np.ndarray, np.ndarray]]
    )
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    request: np.ndarray | None = None


@dataclass(frozen=True)
class RequestKeys:
    """Requests [B] in order of `time`, with candidates [N] from `offsets` [B + 1] on, and the rows of their keys.

    `context` are rows of keys [B], `candidates` [N]; `people` and `sessions` the rows of users and of sessions [B].
    `bases` are base rates [bases, B], where these are known from elsewhere.
    """

    time: np.ndarray
    offsets: np.ndarray
    context: Rows
    candidates: Rows
    people: np.ndarray | None = None
    sessions: np.ndarray | None = None
    bases: np.ndarray | None = None


@dataclass(frozen=True)
class Answers:
    """What was known: numbers and moments of both sides by name, and histories as (times, values, offsets [B + 1]).

    `bases` are the base rates [bases, B].
    """

    context: dict[str, np.ndarray]
    candidates: dict[str, np.ndarray]
    histories: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    bases: np.ndarray
