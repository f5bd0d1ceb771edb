"""What is fitted to the labels of a quantity: its scale, its bins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data import label_bins, preprocessor, sketch
from rec.data.session_table import schema
from rec.spec import Task, parse
from tests.reference import regression as slow

ORDINAL = Task(label="y", predict="ordinal", bins=4)
labels_strategy = st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, 7.0, 31.0, 400.0])


def of(labels):
    """Labels, counted."""
    return sketch.of(np.array(labels))


@given(st.lists(labels_strategy, min_size=2), st.integers(2, 6))
def test_bins_are_of_about_equal_mass(labels, count):
    """Against sorting and counting: edges are labels, every bin has its mean, every cut is the logit of a share."""
    bins = label_bins.fit(ORDINAL.model_copy(update={"bins": count}), of(labels))
    if len(set(labels)) == 1:
        assert (bins.edges, bins.means) == ([labels[0]], [labels[0]] * 2)
        return
    edges, members = slow.bins(labels, count)
    assert bins.edges == edges
    assert bins.means == pytest.approx([sum(inside) / len(inside) for inside in members])
    at_most = [sum(y <= edge for y in labels) for edge in bins.edges]
    assert [slow.sigmoid(cut) for cut in bins.cuts] == pytest.approx([(n + 1) / (len(labels) + 2) for n in at_most])
    assert all(np.diff(bins.cuts) > 0)


@given(st.lists(labels_strategy, min_size=1))
def test_the_scale_is_that_of_logarithms(labels):
    """Mean, deviation and largest of log(1 + y); a deviation of nothing is 1."""
    bins = label_bins.fit(Task(label="y", predict="log"), of(labels))
    logs = np.log1p(labels)
    assert (bins.mean, bins.top, bins.start) == pytest.approx((logs.mean(), logs.max(), 0.0))
    assert bins.std == pytest.approx(logs.std() if len(set(labels)) > 1 else 1.0)


def test_a_quantile_starts_from_the_quantile_of_all():
    """In deviations from the mean of the logarithms."""
    bins = label_bins.fit(Task(label="y", predict="quantile", quantile=0.75), of([0.0, 1.0, 2.0, 3.0, 400.0]))
    assert np.expm1(bins.mean + bins.std * bins.start) == pytest.approx(3.0)


@given(st.floats(0.01, 0.99), st.integers(0, 99))
def test_of_many_labels_it_is_as_if_all_had_been_looked_at(quantile, seed):
    """More differ than are kept apart: bins, scale and quantile are those of numpy, to the width of a bucket."""
    labels = np.random.default_rng(seed).lognormal(2, 1.5, 9000).astype(np.float32)
    logs = np.log1p(labels.astype(np.float64))
    stats = label_bins.fit(Task(label="y", predict="quantile", quantile=quantile), of(labels))
    assert (stats.mean, stats.std) == pytest.approx((logs.mean(), logs.std()), rel=1e-4)
    assert stats.mean + stats.std * stats.start == pytest.approx(np.quantile(logs, quantile), abs=2e-2)
    bins = label_bins.fit(ORDINAL, of(labels))
    assert bins.edges == pytest.approx(np.quantile(labels, [0.25, 0.5, 0.75]), rel=2e-2)
    inside = np.searchsorted(bins.edges, labels, side="left")
    assert bins.means == pytest.approx([labels[inside == k].mean(dtype=np.float64) for k in range(4)], rel=1e-6)


@pytest.mark.parametrize("kind", ["log", "ordinal", "quantile"])
def test_without_one_label_everything_is_nothing(kind):
    """A quantity that training never saw; a spec for later may have one."""
    bins = label_bins.fit(Task(label="y", predict=kind), of([]))
    assert (bins.mean, bins.std, bins.top, bins.start) == (0.0, 1.0, 0.0, 0.0)


def test_targets_are_fitted_where_the_parent_happened_and_are_read_back(tmp_path):
    """Seven seconds without a click, and an unknown click, count for nothing."""
    spec = parse(
        'name = "x"\n[tasks.c]\nlabel = "c"\n[tasks.w]\nlabel = "w"\ngiven = "c"\npredict = "ordinal"\nbins = 2\n'
        '[tasks.free]\nlabel = "f"\npredict = "log"'
    )
    seen = [(1, 3.0, 1.0), (1, 5.0, None), (1, None, 2.0), (0, 7.0, 3.0), (-1, 9.0, 4.0)]
    rows = [{"c": c, "w": w, "free": f} for c, w, f in seen]
    table = [{"request_id": "r", "time": 0, "context": {}, "candidates": rows}]
    fitted_bins = preprocessor.fit([pa.RecordBatch.from_pylist(table, schema=schema(spec))], spec)
    assert fitted_bins.label_bins["w"].means == [3.0, 5.0]
    assert fitted_bins.label_bins["free"].top == pytest.approx(np.log(5.0))
    assert fitted_bins.rates.keys() == {"c"}
    fitted_bins.save(tmp_path)
    assert preprocessor.load(spec, tmp_path) == fitted_bins
