"""Target leak by aggregation: attributes computed from this log's labels, such as an item's click rate over all of it.

Such a column is one number per item (or user, seller, ...) and looks like any attribute, but it correlates with the
sampling noise of the observed outcomes. Split the requests into two halves: the true rate of a key is common to both,
noise is not. So of the variance of observed rates r, only

    reliability = cov(r of one half, r of the other) / var(r)

can be explained, and a column x computed without these outcomes has corr(x, r)^2 <= reliability, since it can at best
be the true rate of the key (Spearman, The Proof and Measurement of Association between Two Things, 1904: a
correlation corrected for attenuation is at most 1). A column computed from them has more. The excess is divided by
its standard error, a jackknife over groups of keys (Efron and Stein, 1981). Keys are weighted by their rows. If rates
have no noise the excess vanishes, and so does the harm: point-in-time rates then have the same values.

The same test covers counts: how often something happened to a key, and how often it was shown, in this log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow.compute as pc

from features.checks.sample import Sample, together
from features.logs.logs import Finding
from rec.spec import Id, Number, Spec

KEYS = 50  # fewer keys tell nothing
GROUPS = 40
EXCESS = 0.01
# standard errors; a column that knows all that is true of a key, and no chance, has 0 on average, and for rates nearly
# never 4; the errors of counts are larger than they look, for a few keys have most of them
SURE, SURE_OF_COUNTS = 4.0, 7.0
EVENTS = 20
LOOK = 20_000  # rows in which an id shows whether it has KEYS values


@dataclass(frozen=True)
class KeyOutcomes:
    """An aggregate per key: its value over all requests [K] and over two halves of them [2, K], and its weight.

    `scale` times the covariance of the halves is the variance of the true aggregate. `fails` is the number of standard
    errors that fails; SURE or more warns.
    """

    what: str
    whole: np.ndarray
    halves: np.ndarray
    weight: np.ndarray
    scale: float
    fails: float = SURE


@dataclass(frozen=True, order=True)
class TargetLeak:
    """A feature aggregated from labels; ordered by severity."""

    fails: bool
    errors: float
    text: str


def statistics(spec: Spec, samples: Mapping[str, Sample]) -> list[Finding]:
    """One finding per side: numbers constant per key that correlate with the key's outcomes beyond chance.

    Tested on the test split, the training split and all splits. Correlation with the number of impressions alone is a
    warning: the logging policy may depend on an attribute.
    """
    samples_by_part = {f"the {split} split": samples[split] for split in ("test", "train")}
    read = {
        name for _, features in spec.sides() for name, feature in features.items() if isinstance(feature, Number | Id)
    }
    keys = {key for whose in ("user", "item") if (key := spec.key_feature(whose)) is not None}
    samples_by_part["the whole log"] = together(samples, {*read, *keys, *spec.tasks})
    return [_finding(spec, side, samples_by_part) for side in ("context", "candidates")]


def _finding(spec: Spec, side: str, samples: Mapping[str, Sample]) -> Finding:
    names = [
        name
        for name, feature in dict(spec.sides())[side].items()
        if isinstance(feature, Number) and feature.make in ("column", "age")
    ]
    worst: dict[str, TargetLeak] = {}
    for where, sample in samples.items():
        for name, leak in _target_leaks(spec, side, sample, names, where):
            worst[name] = max(leak, worst.get(name, leak))
    fails = [leak for leak in worst.values() if leak.fails]
    shown = sorted(fails or worst.values(), reverse=True)
    return Finding(
        f"target leak.{side}",
        not fails,
        len(shown),
        len(names),
        tuple(leak.text for leak in shown[:3]),
        'numbers aggregated from the labels of this log; make = "count" or "rate" uses the past only',
        "fail" if fails else "warn",
    )


def _target_leaks(
    spec: Spec, side: str, sample: Sample, names: Sequence[str], where: str
) -> Iterator[tuple[str, TargetLeak]]:
    for key in _keys(spec, side, sample) if names else ():
        code = sample.codes(side, key)
        values = {name: value for name in names if (value := _per_key(sample.floats(side, name), code)) is not None}
        for outcomes in _outcomes(spec, sample, sample.spread(side, code)) if values else ():
            for name, value in values.items():
                excess, errors = _excess(value, outcomes)
                if errors >= SURE and excess >= EXCESS:
                    text = f"{side}.{name}: one number per {key} that follows {outcomes.what} in {where}, "
                    yield (
                        name,
                        TargetLeak(
                            errors >= outcomes.fails,
                            errors,
                            f"{text}{min(errors, 99):.0f} standard errors beyond chance",
                        ),
                    )


def _keys(spec: Spec, side: str, sample: Sample) -> list[str]:
    """The ids of a side that an aggregate may be grouped by; those with few values are left out."""
    own = spec.key_feature("user" if side == "context" else "item")
    ids = [
        name
        for name, feature in dict(spec.sides())[side].items()
        if isinstance(feature, Id) and feature.make == "column"
    ]
    named = ids if own is None or own in ids else [own, *ids]
    return [name for name in named if pc.count_distinct(sample.stored(side, name)[:LOOK]).as_py() >= KEYS]


def _per_key(values: np.ndarray, code: np.ndarray) -> np.ndarray | None:
    """The value of every key [K + 1], NaN where unknown; None if it varies within a key, or keys do not repeat."""
    size = int(code.max(initial=0)) + 1
    known = np.flatnonzero(~np.isnan(values) & (code > 0))
    number = np.full(size, np.nan)
    number[code[known]] = values[known]
    if len(known) < 2 * size or size <= KEYS or (number[code[known]] != values[known]).any():
        return None
    return number


def _outcomes(spec: Spec, sample: Sample, code_N: np.ndarray) -> Iterator[KeyOutcomes]:
    """Outcomes per key [K + 1] (0: no key): mean label and number of events of each task, and number of rows."""
    size = int(code_N.max(initial=0)) + 1
    half_N = sample.owner % 2
    shown = _sums(code_N, half_N, np.ones(len(code_N)), size)
    for task in spec.tasks:
        label = sample.label(task)
        known = ~np.isnan(label)
        if (label[known] > 0).sum() < EVENTS:
            continue
        rows = _sums(code_N[known], half_N[known], np.ones(int(known.sum())), size)
        total = _sums(code_N[known], half_N[known], label[known], size)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, means = total.sum(0) / rows.sum(0), total / rows
        yield KeyOutcomes(f"its mean of {task}", mean, means, rows.sum(0), 1.0)
        yield KeyOutcomes(f"its number of {task}", total.sum(0), total, (rows.sum(0) > 0) * 1.0, 4.0, SURE_OF_COUNTS)
    yield KeyOutcomes("how often it is shown", shown.sum(0), shown, (shown.sum(0) > 0) * 1.0, 4.0, np.inf)


def _sums(code: np.ndarray, half: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(half * size + code, weights=values, minlength=2 * size).reshape(2, size)


def _excess(value: np.ndarray, outcomes: KeyOutcomes) -> tuple[float, float]:
    """By how much corr(x, r)^2 exceeds the reliability of r, and in standard errors.

    The larger of two: of the column itself, and of its ranks mapped to the distribution of the outcomes, since it may
    be a monotone transform of them, such as a logarithm. The bound holds for both.
    """
    with np.errstate(invalid="ignore"):
        used = np.flatnonzero(~np.isnan(value) & ~np.isnan(outcomes.halves).any(0) & (outcomes.weight > 0))
    used = used[used > 0]
    if len(used) < KEYS:
        return 0.0, 0.0
    x, r, (first, second) = value[used], outcomes.whole[used], outcomes.halves[:, used]
    ranked = np.interp(pl.Series(x).rank().to_numpy() - 1, np.arange(len(r)), np.sort(r))
    excesses = [
        _jackknifed([(column, r), (column, column), (r, r), (first, second)], outcomes.weight[used], outcomes.scale)
        for column in (x - x.mean(), ranked)
    ]
    return max(excesses, key=lambda excess: excess[1])


def _jackknifed(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], weight: np.ndarray, scale: float
) -> tuple[float, float]:
    group = np.arange(len(weight)) % GROUPS
    sums = np.stack(
        [
            [np.bincount(group, weights=v, minlength=GROUPS) for v in (weight, weight * a, weight * b, weight * a * b)]
            for a, b in pairs
        ]
    )  # [pairs, 4, GROUPS]
    without = np.concatenate([sums.sum(2, keepdims=True), sums.sum(2, keepdims=True) - sums], 2)
    cov = without[:, 3] / without[:, 0] - without[:, 1] * without[:, 2] / without[:, 0] ** 2
    if (cov[1:3] <= 1e-12 * np.abs(cov[1:3]).max(1, keepdims=True)).any():
        return 0.0, 0.0  # one number for all keys, or one outcome
    excess = cov[0] ** 2 / (cov[1] * cov[2]) - scale * cov[3] / cov[2]
    left_out = excess[1:]
    error = float(np.sqrt((GROUPS - 1) / GROUPS * ((left_out - left_out.mean()) ** 2).sum()))
    return float(excess[0]), float(excess[0] / error) if error > 0 else 0.0
