"""How well time gaps alone reproduce the session ids of the logs.

A session by id equals one by gaps if both hold the same impressions. It is split if it contains a pause longer than
the gap, and merged if no such pause separates it from another session of its user. A pause is the time between two
consecutive impressions.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from features import hashing
from features.logs.logs import Finding
from features.transforms.sessions import Sessions
from rec.spec import Spec


def compared(spec: Spec, grouped: Sessions, time: np.ndarray) -> list[Finding]:
    """Sessions by id that gaps reproduce, split, and merge; `time` [N] are the impressions' timestamps."""
    if spec.keys.session is None:
        return []
    code = np.repeat(grouped.code, np.diff(grouped.offsets))
    native = hashing.hashed(grouped.rows[spec.keys.session])
    named = grouped.rows[spec.keys.session].is_not_null().to_numpy()
    order = hashing.order(code, time)
    order = order[named[order]]
    belongs, at, name = code[order], time[order], native[order]
    new = np.ones(len(order), bool)
    new[1:] = (belongs[1:] != belongs[:-1]) | (np.diff(at) > spec.sessions.gap // timedelta(microseconds=1))
    by_pause = np.cumsum(new) - 1
    # a name is one of its user's own: what another user calls so is another session
    _, of_native = np.unique(name ^ (belongs * np.uint64(3)), return_inverse=True)
    split, merged = _judged(of_native, by_pause)
    same, total = ~split & ~merged, len(split)
    gap = spec.sessions.gap
    return [
        _told(same, total, f"native sessions that hold what pauses longer than {gap} make"),
        _told(split & ~merged, total, f"native sessions with a pause longer than {gap} inside"),
        _told(merged & ~split, total, f"native sessions less than {gap} from another of their user"),
        _told(merged & split, total, "native sessions that pauses both split and merge with another"),
    ]


def _judged(native: np.ndarray, by_pause: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether gaps split each session by id, and whether they merge it with another [sessions] bool."""
    if not len(native):
        return np.zeros(0, bool), np.zeros(0, bool)
    pair = np.unique(np.stack([native, by_pause]), axis=1)
    per_native, per_pause = np.bincount(pair[0]), np.bincount(pair[1])
    merged = np.zeros(len(per_native), bool)
    np.logical_or.at(merged, pair[0], per_pause[pair[1]] > 1)
    return per_native > 1, merged


def _told(which: np.ndarray, total: int, text: str) -> Finding:
    return Finding("sessions", True, int(which.sum()), total, (), text, "note")
