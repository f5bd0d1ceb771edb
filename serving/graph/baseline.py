"""The ONNX graph of a baseline: its columns, its trees or its rates, and the task graph above them.

    inputs of the spec -> columns [N, F] -> TreeEnsembleRegressor by task -> P(task | parent) -> P(task)
                       -> a value of a table by task                      ->

It is written node by node, without the library that trained, and reads and gives what a network's graph does. What
depends on the context alone is computed once per request.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rec.baselines import gbdt, popularity
from rec.request import RequestBatch
from rec.spec.tasks import conditional, given
from rec.training.baseline_run import BaselineRun
from rec.trees.columns import Codes, Column
from rec.trees.ensemble import Trees
from serving.graph.nodes import GraphNodes
from serving.graph.signature import OWNER, described_inputs, inputs_of, output_names


def write(fitted: BaselineRun, example: RequestBatch, path: Path) -> dict[str, Any]:
    """Write the graph of a fitted baseline; its inputs and outputs as the manifest names them."""
    graph, model = GraphNodes(), fitted.model
    if isinstance(model, gbdt.Model):
        columns_NF = _columns(graph, model.columns, model.codes)
        own = {name: _of_trees(graph, model, name, columns_NF) for name in model.tasks}
    else:
        assert isinstance(model, popularity.Model), "there is no other"
        own = {name: _of_rate(graph, chosen) for name, chosen in model.tasks.items()}
    results: dict[str, str] = {}
    for name, parent in given(fitted.spec.tasks).items():
        results[name] = own[name] if parent is None else graph.add("Mul", results[parent], own[name])
        if parent is not None:
            results[conditional(name, parent)] = own[name]
    inputs = described_inputs(inputs_of(example))
    graph.save(path, inputs, {f"tasks.{name}": result for name, result in results.items()})
    return {"inputs": inputs, "outputs": output_names(fitted.spec)}


def _columns(graph: GraphNodes, columns: list[Column], codes: Codes) -> str:
    """The columns of rec/trees/columns.py [N, F]."""
    tables = {name: graph.constant(code) for name, code in codes.items()}
    sides: dict[bool, list[str]] = {True: [], False: []}
    for (side, feature, make), same in groupby(columns, lambda column: (column.side, column.feature, column.make)):
        if make == "vector":
            sides[side == "context"].append(f"{side}.{feature}")
        else:
            sides[side == "context"] += [_column(graph, column, tables) for column in same]
    joined = [graph.add("Concat", *some, axis=1) for some in sides.values() if some]
    if sides[True]:
        joined[0] = graph.of_candidates(joined[0])
    return joined[0] if len(joined) == 1 else graph.add("Concat", *joined, axis=1)


def _column(graph: GraphNodes, column: Column, tables: dict[str, str]) -> str:
    """One column [B, 1] or [N, 1]."""
    value = f"{column.side}.{column.feature}"
    match column.make:
        case "bucket":
            missing = graph.add("Equal", value, graph.constant(0))
            value = graph.add("Where", missing, graph.constant(np.nan), graph.floats(value))
        case "code":
            value = graph.add("Gather", tables[column.table], value)
        case "newest":
            last = graph.add("Gather", value, graph.constant(-1), axis=1)
            value = graph.add("Gather", tables[column.table], last)
        case "length":
            known = graph.add("Not", graph.add("Equal", value, graph.constant(0)))
            return graph.add("ReduceSum", graph.floats(known), graph.constant([1]), keepdims=1)
        case "same":
            item = graph.column(value)
            past = graph.of_candidates(f"context.{column.other}")
            past = past if column.many else graph.column(past)
            known = graph.add("Not", graph.add("Equal", item, graph.constant(0)))
            equal = graph.add("And", graph.add("Equal", past, item), known)
            return graph.add("ReduceSum", graph.floats(equal), graph.constant([1]), keepdims=1)
    return graph.column(value)


def _of_trees(graph: GraphNodes, model: gbdt.Model, name: str, columns_NF: str) -> str:
    """A task's probability or number where its parent happened [N]; the same as `gbdt.Model.conditional`."""
    of = model.tasks[name]
    if of.trees is None:
        nothing = graph.add("Mul", graph.floats(OWNER), graph.constant(0.0))
        raw = graph.add("Add", nothing, graph.constant(of.offset))
    else:
        attributes = {**tree_attributes(of.trees), "base_values": [of.offset]}
        sums = graph.add("TreeEnsembleRegressor", columns_NF, domain="ai.onnx.ml", n_targets=1, **attributes)
        raw = graph.add("Squeeze", sums, graph.constant([1]))
    predict = model.predict[name]
    if predict == "event":
        return graph.add("Sigmoid", raw)
    top = model.top[name]
    if predict == "ordinal":
        return graph.add("Clip", raw, graph.constant(0.0), graph.constant(np.expm1(top)))
    clipped = graph.add("Clip", raw, graph.constant(0.0), graph.constant(top))
    return graph.add("Sub", graph.add("Exp", clipped), graph.constant(1.0))


def tree_attributes(trees: Trees) -> dict[str, Any]:
    """Trees as attributes of TreeEnsembleRegressor: nodes tree by tree, a tree's root first and its leaves last."""
    counts = _nodes_of(trees)
    nodes, leaves = (np.concatenate([[0], np.cumsum(counts + more)]) for more in (0, 1))
    parts: dict[str, list[Any]] = {key: [] for key in ("ids", "column", "threshold", "left", "right", "missing")}
    for place, count in enumerate(counts):
        inner, size = slice(nodes[place], nodes[place + 1]), 2 * count + 1

        def local(child: np.ndarray, place: int = place, count: int = count) -> np.ndarray:
            return np.where(child >= 0, child - nodes[place], ~child - leaves[place] + count)

        zeros = np.zeros(count + 1, np.int64)
        parts["ids"].append(np.arange(size))
        parts["left"].append(np.r_[local(trees.left[inner]), zeros])
        parts["right"].append(np.r_[local(trees.right[inner]), zeros])
        parts["column"].append(np.r_[trees.column[inner], zeros])
        parts["threshold"].append(np.r_[trees.threshold[inner], np.zeros(count + 1, np.float32)])
        parts["missing"].append(np.r_[trees.left_if_missing[inner], zeros])
    flat = {key: np.concatenate(values).tolist() for key, values in parts.items()}
    tree = np.repeat(np.arange(len(counts)), 2 * counts + 1)
    is_leaf = np.array(flat["ids"]) >= counts[tree]
    return {
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": flat["ids"],
        "nodes_featureids": flat["column"],
        "nodes_values": flat["threshold"],
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": flat["left"],
        "nodes_falsenodeids": flat["right"],
        "nodes_missing_value_tracks_true": [int(value) for value in flat["missing"]],
        "target_treeids": tree[is_leaf].tolist(),
        "target_nodeids": np.array(flat["ids"])[is_leaf].tolist(),
        "target_ids": [0] * int(is_leaf.sum()),
        "target_weights": trees.leaf.astype(np.float32).tolist(),
    }


def _nodes_of(trees: Trees) -> np.ndarray:
    """How many nodes each tree has beside its leaves, of which there is one more [T]."""
    ends = np.append(trees.root[trees.root >= 0], len(trees.column))
    counts = np.zeros(len(trees.root), np.int64)
    counts[trees.root >= 0] = np.diff(ends)
    return counts


def _of_rate(graph: GraphNodes, chosen: popularity.Chosen) -> str:
    """A task's rate [N]; the same as `popularity.Chosen.of`."""
    rate, name = chosen.rate, f"{chosen.rate.side}.{chosen.rate.feature}"
    if rate.make == "declared":
        low, high = graph.constant(popularity.LEAST), graph.constant(1 - popularity.LEAST)
        clipped = graph.add("Clip", name, low, high)
        value = graph.add("Where", graph.add("IsNaN", name), graph.constant(chosen.values[0]), clipped)
    else:
        row = name
        if rate.make == "powers":
            above = graph.add("GreaterOrEqual", graph.column(name), graph.constant(popularity.POWERS))
            counted = graph.add("ReduceSum", graph.floats(above), graph.constant([1]), keepdims=0)
            row = graph.add("Add", counted, graph.constant(1.0))
            row = graph.add("Where", graph.add("IsNaN", name), graph.constant(0.0), row)
            row = graph.add("Cast", row, to=7)  # int64
        value = graph.add("Gather", graph.constant(chosen.values), row)
    return graph.of_candidates(value) if rate.side == "context" else value
