"""Drift: how far the distribution of each feature in the test split is from that in the training split.

    PSI = sum over buckets of (q - p) ln(q / p)         p, q: the bucket's share of training and of test rows

Population stability index; Siddiqi, Credit Risk Scorecards, 2006: less than 0.1 is no change, 0.25 or more a large one.
Without drift PSI is about chi-square with (buckets - 1) degrees of freedom, divided by the number of independent rows
(Yurdakul and Naranjo, Statistical Properties of the Population Stability Index, 2020): large for small logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from features.checks.sample import Sample, lengths
from features.logs.logs import Finding
from rec.spec import AnyFeature, Id, Ids, Kept, Number, Spec
from rec.spec.features import WINDOWED

WARNS, NOTED = 0.25, 0.1
QUANTILES = 10
TOP = 20  # ids that have a bucket of their own


def psi(train: np.ndarray, test: np.ndarray) -> float:
    """PSI of two histograms over the same buckets, with half a row added to each bucket so that no share is 0.

    >>> round(psi(np.array([50, 50]), np.array([80, 20])), 2)
    0.4
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (train, test))
    return float(((q - p) * np.log(q / p)).sum())


def of(spec: Spec, samples: Mapping[str, Sample]) -> dict[str, float]:
    """PSI of every model input, test against train, the largest first; empty if a split is empty.

    Buckets are QUANTILES of the training split for numbers, its TOP ids and one for all others, list lengths, and one
    for missing values. A PSI that sampling noise explains is reported as 0.
    """
    train, test = samples["train"], samples["test"]
    if not len(train.owner) or not len(test.owner):
        return {}
    rows = 1 / (1 / _independent(spec, train) + 1 / _independent(spec, test))
    indices = {}
    for side, features in spec.sides():
        for name, feature in features.items():
            pair = _histograms(train, test, side, name, feature)
            if pair is not None:
                degrees = len(pair[0]) - 1
                chance = (degrees + 4 * np.sqrt(2 * degrees)) / rows
                index = psi(*pair)
                indices[f"{side}.{name}"] = round(index, 4) if index > chance else 0.0
    return dict(sorted(indices.items(), key=lambda index: -index[1]))


def findings(spec: Spec, drift: Mapping[str, float]) -> list[Finding]:
    """Two findings: features with a large PSI, and features with a moderate one."""
    far = [name for name, index in drift.items() if index >= WARNS]
    some = [name for name, index in drift.items() if NOTED <= index < WARNS]

    def shown(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name}: PSI {drift[name]:.2f}{_why(spec, name)}" for name in names[:3])

    text = f"features whose PSI between train and test is {WARNS} or more"
    less = f"features whose PSI between train and test is {NOTED} to {WARNS}"
    return [
        Finding("drift", True, len(far), len(drift), shown(far), text, "warn"),
        Finding("drift.some", True, len(some), len(drift), shown(some), less, "note"),
    ]


def _why(spec: Spec, path: str) -> str:
    side, _, name = path.partition(".")
    feature = dict(spec.sides())[side][name]
    make = getattr(feature, "make", "column")
    ends = any(getattr(feature, key, None) is not None for key in ("window", "half_life"))
    past = make == "history" or (make in WINDOWED and not ends)
    return "; it covers more past than in train; a window would even that out" if past else ""


def _histograms(
    train: Sample, test: Sample, side: str, name: str, feature: AnyFeature
) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts of both splits over the same buckets; None for vectors, kept columns, and hour or weekday."""
    if name not in (train.context if side == "context" else train.candidates) or isinstance(feature, Kept):
        return None
    if isinstance(feature, Number):
        pair = train.numbers(side, name), test.numbers(side, name)
    elif isinstance(feature, Ids):
        pair = tuple(lengths(sample.stored(side, name)).astype(np.float64) for sample in (train, test))
    elif isinstance(feature, Id):
        return _of_ids(pl.Series(train.stored(side, name)), pl.Series(test.stored(side, name)))
    else:
        return None
    return _of_numbers(*pair)


def _of_numbers(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = train[~np.isnan(train)]
    edges = np.unique(np.quantile(known, np.arange(1, QUANTILES) / QUANTILES)) if len(known) else np.zeros(0)
    codes = [np.where(np.isnan(x), 0, 1 + np.searchsorted(edges, x, side="left")) for x in (train, test)]
    return _counted(codes, len(edges) + 2)


def _of_ids(train: pl.Series, test: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Bucket 0 is null, 1 .. TOP the most frequent ids (ties by value), and the last all others."""
    frequent = train.drop_nulls().value_counts(name="@count").sort(["@count", train.name], descending=[True, False])
    top = frequent[train.name].head(TOP)
    place = pl.Series(np.arange(1, len(top) + 1))
    codes = [
        ids.replace_strict(top, place, default=len(top) + 1, return_dtype=pl.Int64).to_numpy().copy()
        for ids in (train, test)
    ]
    for code, ids in zip(codes, (train, test), strict=True):
        code[ids.is_null().to_numpy()] = 0
    return _counted(codes, len(top) + 2)


def _counted(codes: Sequence[np.ndarray], buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows per bucket; buckets empty in both splits are dropped."""
    first, second = (np.bincount(code, minlength=buckets) for code in codes)
    used = (first + second) > 0
    return first[used], second[used]


def _independent(spec: Spec, sample: Sample) -> int:
    """The number of independent rows: users, or requests of logs without users."""
    user = spec.key_feature("user")
    return len(sample.time) if user is None else max(1, pl.Series(sample.context[user]).n_unique())
