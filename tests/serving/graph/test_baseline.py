from __future__ import annotations

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.atomic import read_json
from rec.baselines import gbdt, popularity
from rec.errors import BundleError
from rec.progress import Silent
from rec.spec.tasks import in_order
from rec.training.baseline_run import BaselineRun
from rec.trees import columns
from rec.trees.ensemble import Trees, below
from serving import bundle, evaluate_bundle, export
from serving.graph import baseline, tree_check
from serving.graph.signature import inputs_of
from serving.scorer import Scorer, check_golden
from tests import strategies
from tests.baselines import trained
from tests.serving.conftest import signed


@pytest.fixture(scope="module", params=["gbdt", "popularity"])
def exported(request, spec, data, tmp_path_factory):
    """The bundle of a baseline of the tiny shop."""
    folder = tmp_path_factory.mktemp("exported")
    run = trained(request.param, spec, data, folder)
    export.export(run, folder / "bundle", data=data, progress=Silent())
    return folder / "bundle"


def test_a_baseline_is_a_bundle_like_any_other(exported, data):
    """Opened, its golden requests scored, evaluated: the same figures as of the run."""
    opened = bundle.load(exported)
    assert check_golden(Scorer(opened, threads=1)) <= 1e-5
    name = opened.manifest["model"]
    assert opened.manifest["parity"]["measured_as"] == f"|onnx - {name}| / max(1, |{name}|)"
    report = evaluate_bundle.evaluate_bundle(exported, data, split="validation", progress=Silent())
    (entry,) = read_json(exported.parent / name / "history.json")
    for output, figures in entry["validation"].items():
        assert report["outputs"][output]["auc"] == pytest.approx(figures["auc"], abs=1e-3)


def random_trees(random: np.random.Generator, width: int) -> Trees:
    """Three trees: of three leaves, of one, and of two; thresholds are numbers that occur."""
    threshold = random.choice([-1.0, 0.0, 0.1, 1.0, 2.0, 2.5], 3)
    return Trees(
        np.array([0, -4, 2]),
        random.integers(0, width, 3),
        below(threshold),
        np.array([1, -1, -5]),
        np.array([-3, -2, -6]),
        random.random(3) < 0.5,
        random.normal(size=6),
    )


@settings(max_examples=20)
@given(st.data())
def test_the_graph_of_any_spec_is_the_model(tmp_path_factory, drawn):
    """Every kind of feature and task, in any graph of tasks, one request and many, with values missing."""
    spec = drawn.draw(strategies.specs())
    batch = strategies.batch(spec, drawn.draw(strategies.rows(spec, min_candidates=1)))
    learnt, random = strategies.preprocessor(spec), np.random.default_rng(drawn.draw(st.integers(0, 99)))
    wanted, rows = columns.columns(spec), learnt.rows(spec)
    codes = columns.codes_of({c.table: random.integers(0, 9, rows[c.table]) for c in wanted if c.table}, 3)
    names = in_order(spec.tasks)
    grown = {n: gbdt.Ensemble(random_trees(random, len(wanted)) if random.random() < 0.8 else None, 0.3) for n in names}
    tops = {name: bins.top for name, bins in learnt.label_bins.items()}
    trees = gbdt.Model(wanted, codes, grown, {n: spec.tasks[n].predict for n in names}, tops)
    chosen = {}
    for name in names:
        some = popularity.rates(spec, spec.tasks[name])
        rate = some[random.integers(len(some))]
        size = popularity._rows(rate, spec, rows)
        chosen[name] = popularity.Chosen(rate, random.random(size).astype(np.float32))
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    for model in (trees, popularity.Model(chosen)):
        fitted = BaselineRun(spec, learnt, model)
        baseline.write(fitted, batch, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for part in (batch, batch.request(0)):
            got = session.run([f"tasks.{name}" for name in fitted.score(part)], inputs_of(part))
            for mine, theirs in zip(fitted.score(part).values(), got, strict=True):
                np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("nodes_truenodeids", 0, "children that come after their parent"),
        ("nodes_falsenodeids", 10**6, "children that come after their parent"),
        ("nodes_treeids", 7, "tree by tree"),
        ("nodes_featureids", -1, "columns from 0"),
        ("target_nodeids", 0, "one weight for every leaf"),
        ("nodes_modes", b"BRANCH_EQ", "BRANCH_LEQ, got b'BRANCH_EQ'"),
    ],
)
def test_trees_that_are_not_whole_are_refused(key, value, words):
    """Circles, nodes and columns that are not there, other kinds of nodes: before anything walks through them."""
    trees = random_trees(np.random.default_rng(1), 3)
    attributes = baseline.tree_attributes(trees)
    make = lambda parts: onnx.helper.make_node(  # noqa: E731
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, base_values=[0.0], **parts
    )
    tree_check.check(make(attributes))
    with pytest.raises(BundleError, match=words):
        tree_check.check(make({**attributes, key: [value, *attributes[key][1:]]}))
    with pytest.raises(BundleError, match="'post_transform' is not one of trees of ours"):
        tree_check.check(make({**attributes, "post_transform": "LOGISTIC"}))


def test_a_bundle_with_broken_trees_or_a_column_too_many_is_refused(exported, tmp_path):
    """However well its manifest vouches for it; ONNX Runtime answers for columns that are not there."""
    graph = onnx.load(exported / "model.onnx")
    nodes = [node for node in graph.graph.node if node.op_type == "TreeEnsembleRegressor"]
    if not nodes:
        return
    copy = shutil.copytree(exported, tmp_path / "bundle")
    (column,) = [attribute for attribute in nodes[0].attribute if attribute.name == "nodes_featureids"]
    column.ints[0] = 10**6
    onnx.save(graph, copy / "model.onnx")
    opened = bundle.load(signed(copy))
    with pytest.raises(BundleError, match=r"golden requests cannot be scored: .*feature"):
        check_golden(Scorer(opened, threads=1))
    (child,) = [attribute for attribute in nodes[0].attribute if attribute.name == "nodes_truenodeids"]
    child.ints[0] = 0
    onnx.save(graph, copy / "model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: TreeEnsembleRegressor: expected children that come after"):
        bundle.load(signed(copy))
