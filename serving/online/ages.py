"""How old the stored features are that a request uses.

What is made of the past (counts, rates, histories) and what side tables say is true until the end of the logs that the
store was made of, `@as_of`; a value that the last impression of a user or an item had, such as a device or a price, is
as old as that impression, `@seen` (features/pipeline/snapshot.py). A row that uses both is as old as the older.

A feature that the request sends is not stored, and neither is one that is missing; an id that the store does not know
has no age. An age is negative where the store knows what came after the request's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rec.data.session_table import field_type
from rec.spec import AnyFeature, Kept, Spec
from rec.spec.features import is_bias
from serving.store import EntityStore, SentColumn

VIEWS = ("user", "candidates_median", "candidates_oldest")
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class FeatureAges:
    """Seconds by which the request is later than its stored features were true; None where it uses none.

    The median of an even number of candidates is the older of the two in the middle.
    """

    user: float | None
    candidates_median: float | None
    candidates_oldest: float | None


@dataclass(frozen=True, slots=True)
class Staleness:
    """The ages, and what of them is past the spec's limit: the user, and how many candidates."""

    ages: FeatureAges
    user: bool
    items: int


class StoredAges:
    """The ages of what a bundle's store supplies to requests."""

    def __init__(self, spec: Spec, store: EntityStore) -> None:
        """Which stored features the model reads, by the moment that they are of."""
        self._store = store
        limit = spec.serve.max_feature_age
        self._limit = None if limit is None else round(limit.total_seconds()) * _US
        self._of_past: dict[str, frozenset[str]] = {}
        self._of_last: dict[str, frozenset[str]] = {}
        for side, features in spec.sides():
            table, key = store.table(side), store.keys[side]
            last = frozenset[str]() if table is None or table.moments is None else table.moments.of_last
            supplied = frozenset(suppliable(features)) - {key}
            self._of_past[side], self._of_last[side] = supplied - last, supplied & last

    def of(
        self,
        time: int,
        sent: Mapping[str, Mapping[str, SentColumn]],
        user: np.ndarray | None,
        items: np.ndarray | None,
    ) -> Staleness:
        """Of a request at `time`, microseconds, which sends the columns `sent` of each side.

        `user` [1] and `items` [N] are their rows in the store's tables, -1 for unknown ones.
        """
        moment, moments_N = self._moments("context", sent, user), self._moments("candidates", sent, items)
        oldest = median = None
        if len(moments_N):
            oldest = _seconds(time, moments_N.min())
            middle = (len(moments_N) - 1) // 2
            median = _seconds(time, np.partition(moments_N, middle)[middle])
        ages = FeatureAges(_seconds(time, moment[0]) if len(moment) else None, median, oldest)
        if self._limit is None:
            return Staleness(ages, user=False, items=0)
        stale = time - self._limit
        return Staleness(ages, bool((moment < stale).any()), int(np.count_nonzero(moments_N < stale)))

    def _moments(
        self, side: str, sent_of: Mapping[str, Mapping[str, SentColumn]], index: np.ndarray | None
    ) -> np.ndarray:
        """The moments of those rows of a side that use anything stored, microseconds [at most n]."""
        table, sent = self._store.table(side), sent_of[side]
        if table is None or table.moments is None or index is None:
            return np.zeros(0, np.int64)
        lost = self._store.lost(side, sent)
        of_last, of_past = _users(self._of_last[side] - lost, sent), _users(self._of_past[side] - lost, sent)
        used = (index >= 0) & (of_last | of_past)
        index = index[used]
        if isinstance(of_last, np.ndarray):
            return np.where(of_last[used], table.moments.seen[index], table.moments.as_of[index])
        return (table.moments.seen if of_last else table.moments.as_of)[index]


def suppliable(features: Mapping[str, AnyFeature]) -> set[str]:
    """Features of a side that the model reads, and a request or the store must supply."""
    return {
        name
        for name, feature in features.items()
        if not isinstance(feature, Kept) and not is_bias(feature) and field_type(feature) is not None
    }


def _users(names: frozenset[str], sent: Mapping[str, SentColumn]) -> bool | np.ndarray:
    """Which rows use the stored value of any of these features, since they did not send it: all, none, or [n]."""
    if names - sent.keys():
        return True
    absent = [~present for name in names if (present := sent[name].present) is not None]
    return np.logical_or.reduce(absent) if absent else False


def _seconds(time: int, moment: np.int64) -> float:
    return (time - int(moment)) / _US
