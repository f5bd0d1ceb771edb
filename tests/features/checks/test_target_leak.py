"""Columns worked out over the very log they are to predict, planted; and the best that honest ones can be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from features.checks import target_leak
from features.checks.sample import Sample
from features.logs.logs import Finding
from rec.spec import parse
from tests.features import tiny

ITEMS, ROWS = 300, 12_000
RNG = np.random.default_rng(11)
TRUTH = RNG.beta(2, 10, ITEMS)  # how likely each item is clicked
ITEM = RNG.choice(ITEMS, ROWS, p=RNG.dirichlet(np.full(ITEMS, 3.0)))
CLICK = (RNG.random(ROWS) < TRUTH[ITEM]).astype(np.int8)
TEST = np.arange(ROWS) >= 9_000
SHOWN = np.bincount(ITEM, minlength=ITEMS)
CLICKS = np.bincount(ITEM, weights=CLICK, minlength=ITEMS)
SPEC = tiny.spec(candidates='x = { kind = "number" }')


def samples(x: np.ndarray) -> dict[str, Sample]:
    """Train, validation (none) and test, with a number per item."""
    splits = {}
    for split, rows in (("train", ~TEST), ("validation", np.zeros(ROWS, bool)), ("test", TEST)):
        count = int(rows.sum())
        candidates = {
            "item": pa.array(ITEM[rows]),
            "click": pa.array(CLICK[rows]),
            "x": pa.array(x[ITEM[rows]], pa.float32(), from_pandas=True),
        }
        splits[split] = Sample({"user": pa.array(np.arange(count))}, candidates, np.arange(count), np.arange(count))
    return splits


def finding_of(x: np.ndarray) -> Finding:
    """What is said of a number of items."""
    return target_leak.statistics(SPEC, samples(x))[1]


def rate(rows: np.ndarray) -> np.ndarray:
    """The click rate of every item over some rows."""
    shown = np.bincount(ITEM[rows], minlength=ITEMS)
    clicks = np.bincount(ITEM[rows], weights=CLICK[rows], minlength=ITEMS)
    return np.where(shown > 0, clicks / np.maximum(shown, 1), np.nan)


@pytest.mark.parametrize(
    ("rows", "where"), [(TEST | True, "the whole log"), (TEST, "the test split"), (~TEST, "the train split")]
)
def test_a_click_rate_over_the_log_is_found(rows, where):
    """Over all of it, or only the part it was worked out on."""
    finding = finding_of(rate(rows))
    assert (finding.name, finding.passed, finding.count, finding.total) == ("target leak.candidates", False, 1, 1)
    text = f"candidates.x: one number per item that follows its mean of click in {where}, "
    assert finding.examples[0].startswith(text)
    assert finding.examples[0].endswith(" standard errors beyond chance")


def test_a_key_that_is_kept_and_no_input_is_a_key_still():
    """Users and items whose ids the model does not read."""
    kept = parse(
        tiny.SPEC.format(context="", candidates='x = { kind = "number" }', tasks="", gap=5, window=0).replace(
            'item = { kind = "id"', 'item = { kind = "kept"'
        )
    )
    assert kept.candidates["item"].kind == "kept"
    assert not target_leak.statistics(kept, samples(rate(~TEST)))[1].passed


def test_its_logarithm_rounded_and_smoothed_is_found_too():
    """Whoever works one out has his own way to write it."""
    smoothed = (CLICKS + 5 * CLICK.mean()) / (SHOWN + 5)
    assert not finding_of(np.round(np.log(smoothed), 1)).passed


def test_the_truth_is_no_target_leak():
    """What knows all that is true of an item, and no chance, is the best honest number there is."""
    assert finding_of(TRUTH).passed
    assert finding_of(np.log(TRUTH)).count == 0


def test_what_was_known_before_the_log_is_no_target_leak():
    """The rate of an earlier year."""
    assert finding_of(RNG.binomial(60, TRUTH) / 60).count == 0


def test_what_has_nothing_to_do_with_clicks_is_no_target_leak():
    """Most attributes."""
    assert finding_of(RNG.random(ITEMS)).count == 0


def test_how_often_an_item_is_shown_is_a_warning():
    """A log may have been made so that an attribute says it."""
    finding = finding_of(SHOWN.astype(np.float64))
    assert (finding.passed, finding.level, finding.count) == (True, "warn", 1)
    assert "one number per item that follows how often it is shown" in finding.examples[0]


def test_a_number_that_changes_is_no_matter_of_a_key():
    """A rate as of each request differs from request to request."""
    drawn = samples(rate(TEST | True))
    for split in drawn.values():
        split.candidates["x"] = pa.array(np.arange(len(split.owner)), pa.float32())  # type: ignore[index]
    assert target_leak.statistics(SPEC, drawn)[1].count == 0


def test_few_keys_or_few_events_tell_nothing():
    """49 items, or 19 clicks."""
    x = rate(TEST | True)
    few = {name: _where(split, ITEM[_rows(name)] < 49) for name, split in samples(x).items()}
    assert target_leak.statistics(SPEC, few)[1].count == 0
    rare = samples(x)
    for name, split in rare.items():
        click = CLICK[_rows(name)] * (np.cumsum(CLICK[_rows(name)]) <= 9)
        split.candidates["click"] = pa.array(click)  # type: ignore[index]
    assert target_leak.statistics(SPEC, rare)[1].count == 0


@pytest.mark.parametrize(("a", "b", "shown"), [(2, 20, 30), (1, 4, 5), (3, 20, 100)])
def test_the_excess_of_the_truth_is_small_in_standard_errors(a, b, shown):
    """Drawn a hundred times: never as much as SURE, and 0 on average; a planted rate has more nearly always."""
    rng = np.random.default_rng(3)
    honest, planted = [], []
    for _ in range(100):
        truth = rng.beta(a, b, 400)
        rows = rng.poisson(shown * rng.lognormal(0, 0.5, (2, 400))) + 1
        events = rng.binomial(rows, truth)
        r = events.sum(0) / rows.sum(0)
        outcomes = target_leak.KeyOutcomes("", np.r_[0, r], np.c_[[0, 0], events / rows], np.r_[0, rows.sum(0)], 1.0)
        honest.append(target_leak._excess(np.r_[np.nan, truth], outcomes)[1])
        planted.append(target_leak._excess(np.r_[np.nan, r], outcomes)[1])
    assert max(honest) < target_leak.SURE
    assert abs(np.mean(honest)) < 0.5
    assert np.median(planted) > target_leak.SURE


def _rows(split: str) -> np.ndarray:
    return {"train": ~TEST, "validation": np.zeros(ROWS, bool), "test": TEST}[split]


def _where(sample: Sample, rows: np.ndarray) -> Sample:
    mask = pa.array(rows)
    context = {name: column.filter(mask) for name, column in sample.context.items()}
    candidates = {name: column.filter(mask) for name, column in sample.candidates.items()}
    return Sample(context, candidates, np.arange(int(rows.sum())), np.arange(int(rows.sum())))
