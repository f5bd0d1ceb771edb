"""Data quality of built session tables: unknown ids, features without content, ranges, clocks, splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features.checks.sample import Sample, lengths
from features.logs.logs import Finding
from features.transforms import sample_weights
from rec.spec import Kept, Number, Spec
from rec.spec.tasks import weighted

ENOUGH = 20  # rows: below it nothing is called empty or constant
UNKNOWN = 0.5  # the share of unknown ids from which a feature is worth a look
YEARS_50 = 50 * 365.25  # days
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000
_WITHOUT_SPLIT = {
    "train": "nothing can be learnt",
    "validation": "training cannot stop early or choose its best epoch",
    "test": "the model cannot be evaluated on unseen data",
}
_WITHOUT_CLASS = {
    "train": "the model cannot learn what makes the difference",
    "validation": "its AUC cannot choose the best epoch",
}

__all__ = ["clock", "contents", "known", "missing", "ranges", "splits", "unknown"]


def unknown(shares: Mapping[str, Mapping[str, float]]) -> Finding:
    """Features with a large share of test ids that are unknown to training."""
    of_test = shares.get("test", {})
    odd = sorted((name for name, share in of_test.items() if share >= UNKNOWN), key=lambda name: -of_test[name])
    shown = tuple(f"{name}: {of_test[name]:.1%} of its ids in test" for name in odd[:3])
    text = f"features with at least {UNKNOWN:.0%} of their ids unknown to training"
    return Finding("unknown ids", True, len(odd), len(of_test), shown, text, "warn")


def contents(spec: Spec, samples: Mapping[str, Sample]) -> list[Finding]:
    """Features that are always missing (an attribute fails), and features constant in the training split."""
    train, never, nothing, constant = samples["train"], [], [], []
    stored = [column for column in _stored(spec, train) if not isinstance(column[2], Kept)]
    for side, name, feature in stored:
        where = f"{side}.{name}"
        of_split = {split: known(sample, side, name) for split, sample in samples.items()}
        empty = [split for split, (rows, some) in of_split.items() if rows >= ENOUGH and not some]
        if len(empty) == len(samples) and getattr(feature, "make", "column") in ("column", "age", "tokens"):
            never.append(where)
        elif empty:
            nothing.append(f"{where}: in {', '.join(empty)}")
        elif not pa.types.is_list(train.stored(side, name).type):
            values = pl.Series(train.stored(side, name))
            if len(values) >= ENOUGH and values.n_unique() == 1:
                constant.append(f"{where}: {values[0]}")
    text = "features that are constant in train: they carry no information"
    return [
        Finding("empty", not never, len(never), len(stored), tuple(never[:3]), "features that never have a value"),
        _warning("empty.split", nothing, len(stored), "features without any value in a split"),
        _warning("constant", constant, len(stored), text),
    ]


def ranges(spec: Spec, samples: Mapping[str, Sample]) -> Finding:
    """Infinite numbers (or too large for float32), and ages over 50 years, perhaps of missing timestamps."""
    odd, total = [], 0
    for side, name, feature in _stored(spec, samples["train"]):
        if isinstance(feature, Number):
            total += 1
            infinite = sum(int(np.isinf(sample.floats(side, name)).sum()) for sample in samples.values())
            ancient = 0
            if feature.make == "age":
                ancient = sum(int((sample.numbers(side, name) > YEARS_50).sum()) for sample in samples.values())
            if infinite:
                odd.append(f"{side}.{name}: {infinite} infinite; they count as missing")
            if ancient:
                odd.append(f"{side}.{name}: {ancient} timestamps over 50 years ago; is a missing one written as 0?")
    return _warning("ranges", odd, total, "numbers out of range")


def clock(spec: Spec, samples: Mapping[str, Sample]) -> list[Finding]:
    """Requests before the year 2000, and timestamps of whole days."""
    if spec.keys.time is None:
        return []
    time = np.concatenate([sample.time for sample in samples.values()])
    early = np.flatnonzero(time < YEAR_2000.timestamp() * 1e6)
    shown = tuple(str(np.datetime64(int(stamp), "us")) for stamp in np.unique(time[early])[:3])
    unit = _likely_unit(float(np.median(time[early])), spec.keys.time_unit) if len(early) else None
    right = "is keys.time_unit right?" if unit is None else f"with keys.time_unit = {unit!r} they would be of our time"
    days = len(time) >= ENOUGH and not (time % _DAY).any()
    text = "requests with timestamps of whole days: events of a day are seen from the next day on"
    return [
        Finding("clock", True, len(early), len(time), shown, f"requests before 2000; {right}", "warn"),
        Finding("clock.days", True, len(time) if days else 0, len(time), (), text, "note"),
    ]


def _likely_unit(timestamp_us: float, unit: str) -> str | None:
    """The unit of time in which an early timestamp, read in another, is from 2000 to 2100."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    if unit not in per_second:
        return None
    count = timestamp_us / 1e6 * per_second[unit]
    ours = (YEAR_2000.timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    return next((other for other, per in per_second.items() if ours[0] <= count / per <= ours[1]), None)


def weights(spec: Spec, counts: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """The range of each task's sample weights, and how many are 0; a warning where all of a split are."""
    out = []
    for task in weighted(spec.tasks):
        total = sum(split["observed"][task] for split in counts.values())
        whole = sample_weights.merged({task: split["sample_weights"][task]} for split in counts.values())[task]
        nothing = [
            f"{name}: all sample weights are 0; nothing can be learnt or evaluated there"
            for name, split in counts.items()
            if split["observed"][task] and split["sample_weights"][task]["largest"] == 0
        ]
        text = f"sample weights of {task}: {sample_weights.in_words(whole, total)}"
        level = "warn" if nothing else "note"
        out.append(Finding(f"tasks.{task}.sample_weight", True, total, total, tuple(nothing), text, level))
    return out


def splits(spec: Spec, counts: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Splits without a request, and tasks whose labels in a split are all missing, all 0 or (of an event) all 1.

    `counts` are `requests`, and by task `observed` and `positives`, of every split.
    """
    empty = [f"{name}: 0 requests; {_WITHOUT_SPLIT[name]}" for name, split in counts.items() if not split["requests"]]
    odd = []
    for task, declared in spec.tasks.items():
        for name, split in counts.items():
            observed, positives = split["observed"][task], split["positives"][task]
            means = _WITHOUT_CLASS.get(name, "no AUC can be computed there")
            if split["requests"] and not observed:
                odd.append(f"{task} in {name}: 0 labels observed; nothing can be learnt or evaluated there")
            elif split["requests"] and not positives:
                odd.append(f"{task} in {name}: 0 positives, {observed:,} negatives; {means}")
            elif split["requests"] and positives == observed and declared.predict == "event":
                odd.append(f"{task} in {name}: {positives:,} positives, 0 negatives; {means}")
    return [
        _warning("splits", empty, len(counts), "splits without a request; see [split] in the spec"),
        _warning("labels.split", odd, len(spec.tasks) * len(counts), "tasks with one kind of label in a split"),
    ]


def missing(spec: Spec, samples: Mapping[str, Sample]) -> dict[str, dict[str, float]]:
    """The share of rows without a value, by split and feature, of features that lack one anywhere."""
    shares: dict[str, dict[str, float]] = {split: {} for split in samples}
    for side, name, _ in _stored(spec, samples["train"]):
        of_split = {split: known(sample, side, name) for split, sample in samples.items()}
        if any(some < rows for rows, some in of_split.values()):
            for split, (rows, some) in of_split.items():
                shares[split][name] = round(1 - some / rows, 6) if rows else 0.0
    return shares


def _stored(spec: Spec, sample: Sample) -> Iterator[tuple[str, str, object]]:
    for side, features in spec.sides():
        columns = sample.context if side == "context" else sample.candidates
        for name, feature in features.items():
            if name in columns:
                yield side, name, feature


def known(sample: Sample, side: str, name: str) -> tuple[int, int]:
    """Rows, and how many of them have a value: a list has one when it is not empty."""
    column = sample.stored(side, name)
    if pa.types.is_list(column.type):
        return len(column), int(np.count_nonzero(lengths(column)))
    if pa.types.is_floating(column.type):
        return len(column), len(column) - int(np.isnan(sample.floats(side, name)).sum())
    return len(column), len(column) - column.null_count


def _warning(name: str, odd: Sequence[str], total: int, text: str) -> Finding:
    return Finding(name, True, len(odd), total, tuple(odd[:3]), text, "warn")
