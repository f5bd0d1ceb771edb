"""Shares of requests as a stream of impressions goes by: what comes of a request may change those of others.

They are changed while these are queued: at least as long as `open_windows.kept_for` says.
"""

from __future__ import annotations

import numpy as np

from features.store.sessions import Begun
from features.sweep.event_queue import EventQueue
from features.sweep.request_shares import shares, sizes
from features.sweep.sweep import REQUEST, Sweep
from features.sweep.value_totals import value_of
from features.transforms.counters import SHARE


def shares_of(queue: EventQueue, time: np.ndarray, begun: Begun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shares of new impressions [n] at `time`, ascending; the places of queued ones with another share, and it.

    A new one changes queued ones of the same request that were shown no earlier than it.
    """
    start = queue.before(int(time[0])) if len(time) else len(queue)
    places = start + np.flatnonzero(np.isin(queue.of(REQUEST)[start:], begun.request))
    named, where = np.unique(begun.request, return_inverse=True)
    total = np.zeros(len(named), np.int64)
    np.maximum.at(total, where, begun.shown)
    request = np.concatenate([queue.of(REQUEST)[places], begun.request])
    moments = np.concatenate([queue.time[places], time])
    share = shares(sizes(request, moments, total[np.searchsorted(named, request)]))
    changed = share[: len(places)] != queue.of(value_of(SHARE))[places]
    return share[len(places) :], places[changed], share[: len(places)][changed]


def shown_of(sweep: Sweep, places: np.ndarray, share: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The requests of queued impressions [n], and their shares as they are, or as they are from now on."""
    if not sweep.expects:
        return None
    return sweep.queue.of(REQUEST)[places], sweep.queue.of(value_of(SHARE))[places] if share is None else share


def newest_number(sweep: Sweep) -> int:
    """The largest number of a request of queued impressions; -1 for none."""
    return int(sweep.queue.of(REQUEST).max(initial=-1)) if sweep.expects else -1
