"""The monitor: which tasks have a say, how much of one, and when training stops."""

from __future__ import annotations

import numpy as np
import pytest

from rec import spec as specs
from rec.training import monitor
from tests.conftest import SHOP


def spec_of(*, space="all", metric="normalised_entropy", patience=2, **weights):
    """The tiny shop, click and buy, with other settings."""
    spec = specs.parse(SHOP)
    tasks = {
        name: task.model_copy(update={"weight": weights.get(name, 1.0), "space": space if task.given else "all"})
        for name, task in spec.tasks.items()
    }
    train = spec.train.model_copy(update={"monitor": metric, "patience": patience})
    return spec.model_copy(update={"tasks": tasks, "train": train})


def event(auc, *, positives=500, candidates=10_000, entropy=None):
    """Figures of an event."""
    entropy = 1.5 - auc if entropy is None and auc is not None else entropy
    return {"auc": auc, "normalised_entropy": entropy, "positives": positives, "candidates": candidates}


def entry(epoch, *, step=None, **outputs):
    """A validation; `buy_given` stands for the output buy|click."""
    validation = {"buy|click" if name == "buy_given" else name: figures for name, figures in outputs.items()}
    return {"epoch": epoch, "validation": validation} | ({} if step is None else {"step": step})


def test_a_lucky_rare_task_does_not_stop_training():
    """Measured: by `auc`, training stopped at epoch 1 of 12, because five purchases happened to be ranked well."""
    spec = spec_of(metric="auc")
    lucky = [1.0, 0.62, 0.71, 0.58, 0.66, 0.7, 0.61, 0.6, 0.65, 0.63, 0.7, 0.64]
    history = [
        entry(n, click=event(0.6 + 0.01 * n), buy=event(rare, positives=5), buy_given=event(rare, positives=5))
        for n, rare in enumerate(lucky, 1)
    ]
    for length in range(1, 13):
        assert monitor.best(history[:length], spec) == length - 1
        assert not monitor.stalled(history[:length], spec)
    assert np.argmax([e["validation"]["click"]["auc"] + 2 * e["validation"]["buy"]["auc"] for e in history]) == 0


@pytest.mark.parametrize(("space", "expected"), [("all", (0.7 + 0.8) / 2), ("parent", (0.7 + 0.6) / 2)])
def test_a_child_counts_once_by_the_output_its_loss_is_on(space, expected):
    """P(buy) where the loss is over all candidates, P(buy | click) where it is over clicked ones."""
    spec = spec_of(space=space, metric="auc")
    epoch = entry(1, click=event(0.7), buy=event(0.8), buy_given=event(0.6, candidates=900))
    assert monitor.monitored(epoch, spec) == pytest.approx(expected)


def test_tasks_count_by_their_weight():
    """As their losses do; one of weight 0 not at all."""
    epoch = entry(1, click=event(0.7, entropy=0.9), buy=event(0.8, entropy=0.5))
    assert monitor.monitored(epoch, spec_of(click=3.0)) == pytest.approx(-(3 * 0.9 + 0.5) / 4)
    assert monitor.monitored(epoch, spec_of(buy=0.0)) == pytest.approx(-0.9)
    assert monitor.remarks(epoch, spec_of(buy=0.0)) == ["buy: left out of train.monitor: its weight is 0"]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"positives": 29}, "29 positives in validation, fewer than 30"),
        ({"positives": 9_971}, "29 negatives in validation, fewer than 30"),
        ({"positives": 30}, ""),
        ({"positives": 9_970}, ""),
    ],
)
def test_fewer_than_thirty_of_either_class_say_nothing(counts, text):
    """Both sides of the threshold."""
    spec = spec_of(metric="auc")
    epoch = entry(1, click=event(0.7), buy=event(0.9, **counts))
    assert monitor.monitored(epoch, spec) == pytest.approx(0.7 if text else 0.8)
    assert monitor.remarks(epoch, spec) == ([f"buy: left out of train.monitor: {text}"] if text else [])


def test_where_nothing_can_be_said_the_newest_is_the_best():
    """Too few of everything, figures that are undefined, or no validation split."""
    few = [entry(n, click=event(1 - n / 10, positives=3), buy=event(None, positives=0)) for n in range(1, 9)]
    none = [{"epoch": n, "validation": {}} for n in range(1, 9)]
    for history in (few, none):
        assert monitor.monitored(history[0], spec_of()) is None
        assert monitor.best(history, spec_of()) == 7
        assert not monitor.stalled(history, spec_of())
    assert monitor.remarks(few[0], spec_of())[-1] == (
        "no task has a normalised_entropy to compare: the newest weights are kept as the best"
    )
    assert monitor.remarks(none[0], spec_of()) == []


@pytest.mark.parametrize("metric", ["auc", "normalised_entropy"])
def test_a_task_that_is_undefined_once_is_compared_nowhere(metric):
    """Otherwise the mean would move because a task came or went; NaN is undefined."""
    spec = spec_of(metric=metric)
    history = [
        entry(1, click=event(0.7), buy=event(None)),
        entry(2, click=event(0.8), buy=event(0.1)),
        entry(3, click=event(0.75), buy=event(float("nan"))),
    ]
    assert monitor.best(history, spec) == 1


def test_training_stops_after_patience_epochs_without_a_better_one():
    """Two at the default; of two that are alike the earlier is the best."""
    history = [entry(n, click=event(auc)) for n, auc in enumerate([0.6, 0.7, 0.7, 0.65], 1)]
    assert [monitor.stalled(history[:n], spec_of(buy=0.0)) for n in range(5)] == [False, False, False, False, True]
    assert monitor.best(history, spec_of(buy=0.0)) == 1


def test_patience_is_in_epochs_however_often_one_validates():
    """Four validations an epoch: best at step 150, epochs of 100 steps, the first of 99."""
    steps = [*range(25, 100, 25), 99, *range(125, 401, 25)]
    history = [
        entry(-(-step // 100), step=step, click=event(0.7 if step == 150 else 0.6), buy=event(0.5)) for step in steps
    ]
    stopped = [h["step"] for n, h in enumerate(history, 1) if monitor.stalled(history[:n], spec_of())]
    assert stopped[0] == 350
    assert history[monitor.best(history, spec_of())]["step"] == 150


def test_epochs_of_unequal_length_are_epochs_all_the_same():
    """Validated once at the end of each, with steps that differ a little."""
    history = [
        entry(n, step=step, click=event(auc), buy=event(0.5))
        for n, step, auc in [(1, 100, 0.7), (2, 202, 0.6), (3, 300, 0.6)]
    ]
    assert [monitor.stalled(history[:n], spec_of()) for n in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(("metric", "expected"), [("normalised_entropy", -(0.8 + 0.6) / 2), ("auc", (0.7 + 0.9) / 2)])
def test_regressions_count_by_their_counterparts(metric, expected):
    """Normalised error and concordance, of at least 30 candidates."""
    spec = spec_of(metric=metric)
    watch = spec.tasks["click"].model_copy(update={"predict": "log"})
    spec = spec.model_copy(update={"tasks": {"click": spec.tasks["click"], "watch": watch}})
    metrics = {"concordance": 0.9, "normalised_error": 0.6, "candidates": 30}
    epoch = entry(1, click=event(0.7, entropy=0.8), watch=metrics)
    assert monitor.monitored(epoch, spec) == pytest.approx(expected)
    few = entry(1, click=event(0.7, entropy=0.8), watch={**metrics, "candidates": 29})
    assert monitor.monitored(few, spec) == pytest.approx(-0.8 if metric == "normalised_entropy" else 0.7)
