"""Point-in-time counters of a key: impressions, events, rates, and the times of the first and the last event.

    an impression at t, behaviour with window w:   its outcome is known at t + w
    a request at T uses it when                    t + w < T          events at exactly the request time are excluded
    and, in a window W, when                       T - W <= t + w

Every counter of a key, whatever its delay and window, is kept as the log goes by (features/sweep/key_group.py).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from rec.spec import Spec
from rec.spec.features import EXPECTED, PAST, Number, keys_of, matching_of, value_of
from rec.spec.tasks import behaviours, conditional

NEVER = np.iinfo(np.int64).min  # the time of an event where there is none: no timestamp is it
SHARE = "@share"  # the column of 1/size of an impression's request, which we make
_US = timedelta(microseconds=1)


Per = tuple[str, ...]  # the columns that something is counted by; if requests ask by others, those, "", and these


def asked_by(per: Per) -> tuple[str, ...]:
    """The columns of a request that say whose past is looked at.

    >>> asked_by(("item_id", "", "page_id")), asked_by(("item_id",))
    (('item_id',), ('item_id',))
    """
    return per[: per.index("")] if "" in per else per


def counted_by(per: Per) -> tuple[str, ...]:
    """The columns of past impressions that say whose they are.

    >>> counted_by(("item_id", "", "page_id")), counted_by(("item_id",))
    (('page_id',), ('item_id',))
    """
    return per[per.index("") + 1 :] if "" in per else per


@dataclass(frozen=True)
class Counter:
    """A point-in-time counter of a key: a count, a rate, the time of an event, or one of values of a `column`.

    Expected clicks, and clicks over these, are of the column SHARE.

    What became known `half_life` microseconds before counts half; none: all the same.
    """

    side: str
    name: str
    per: Per
    make: str
    task: str | None
    lag: int
    window: int | None
    prior: float
    column: str | None = None
    half_life: int | None = None


def outcome(labels: Mapping[str, np.ndarray], task: str) -> np.ndarray:
    """The label of a behaviour [n]; of a child given its parent, not observed where the parent did not happen."""
    child, _, parent = task.partition("|")
    return np.where(labels[parent] == 1, labels[child], np.int8(-1)) if parent else labels[child]


def counters(spec: Spec) -> list[Counter]:
    """Every counter of a spec, in its order."""
    declared = []
    lags = {name: behaviour.window // _US for name, behaviour in behaviours(spec).items()}
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Number) and feature.make in PAST:
                per = keys_of(feature) or (str(spec.keys.user),)
                per = per if matching_of(feature) in ((), per) else (*per, "", *matching_of(feature))
                window = None if feature.window is None else feature.window // _US
                lag, task = 0 if feature.task is None else lags[feature.task], feature.task
                if task is not None and feature.given is not None:
                    lag, task = max(lag, lags[feature.given]), conditional(task, feature.given)
                half_life = None if feature.half_life is None else feature.half_life // _US
                column = SHARE if feature.make in EXPECTED else value_of(feature)
                more = feature.prior, column, half_life
                declared.append(Counter(side, name, per, feature.make, task, lag, window, *more))
    return declared


def numbers_of(every: Sequence[Counter], pers: Container[Per]) -> dict[str, str]:
    """The columns whose values are summed for some keys, or for the base of all, and where the spec names them."""
    return {
        counter.column: f"{counter.side}.{counter.name}"
        for counter in every
        if counter.column is not None and (counter.per in pers or counter.make == "coec")
    }


def base_names(every: Sequence[Counter], tasks: Sequence[str]) -> list[str]:
    """What base rates are called, in their order: those of behaviours, and of these over expected clicks.

    >>> base_names(counters, ["click", "buy"])
    ['click', 'buy', 'coec click']
    """
    return [*tasks, *dict.fromkeys(f"coec {counter.task}" for counter in every if counter.make == "coec")]
