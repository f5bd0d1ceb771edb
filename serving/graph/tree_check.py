"""Trees in a graph, checked before ONNX Runtime walks through them: each node once, from the root down to leaves.

Only what serving/graph/baseline.py writes is read: TreeEnsembleRegressor, of nodes that are leaves or `x <= value`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from rec.errors import BundleError

OPERATOR, DOMAIN = "TreeEnsembleRegressor", "ai.onnx.ml"
_NODES = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
_TARGETS = ("treeids", "nodeids", "ids", "weights")
_MISSING = "nodes_missing_value_tracks_true"
_KEYS = {*(f"nodes_{key}" for key in _NODES), *(f"target_{key}" for key in _TARGETS), _MISSING, "base_values"}
_MODES = (b"BRANCH_LEQ", b"LEAF")


def check(node: onnx.NodeProto) -> None:
    """Raise BundleError for trees that are not whole, of another kind, or run in a circle."""
    try:
        parts = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        problem = _problem(parts)
    except (KeyError, TypeError, ValueError) as error:
        problem = repr(error)
    if problem:
        raise BundleError(f"{OPERATOR}: {problem:.200}")


def _problem(parts: Mapping[str, Any]) -> str:
    """What is wrong with the attributes of a node, or the empty string."""
    for name in sorted(parts.keys() ^ {*_KEYS, "n_targets"}):
        return f"attribute {name!r} is {'not one of trees of ours' if name in parts else 'missing'}"
    if parts["n_targets"] != 1 or len(parts["base_values"]) != 1 or not np.isfinite(parts["base_values"]).all():
        return "expected one target, and a finite number to begin with"
    nodes = {key: list(parts[f"nodes_{key}"]) for key in _NODES}
    targets = {key: list(parts[f"target_{key}"]) for key in _TARGETS}
    sizes = {len(values) for values in (*nodes.values(), parts[_MISSING])}
    if len(sizes) != 1 or 0 in sizes or len({len(values) for values in targets.values()}) != 1:
        return "lists of nodes, or of leaves, that are not equally long"
    if not set(nodes["modes"]) <= set(_MODES):
        return f"expected nodes that are leaves or BRANCH_LEQ, got {min({*nodes['modes']} - {*_MODES})!r}"
    leaf_M = np.array([mode == b"LEAF" for mode in nodes["modes"]])
    return _of_shape({key: np.array(nodes[key]) for key in _NODES if key != "modes"}, targets, leaf_M)


def _of_shape(nodes: Mapping[str, np.ndarray], targets: Mapping[str, list[Any]], leaf_M: np.ndarray) -> str:
    """Whether nodes [M] are trees: one after the other, numbered from 0, each node but a root one node's child."""
    tree, number = nodes["treeids"], nodes["nodeids"]
    begins = np.r_[True, tree[1:] != tree[:-1]]
    first = np.flatnonzero(begins)
    start = first[np.cumsum(begins) - 1]
    size = np.diff(np.r_[first, len(tree)])[np.cumsum(begins) - 1]
    if (tree != np.cumsum(begins) - 1).any() or (number != np.arange(len(tree)) - start).any():
        return "expected nodes tree by tree, numbered from 0"
    if (nodes["featureids"] < 0).any() or not np.isfinite(nodes["values"]).all():
        return "expected columns from 0, and finite thresholds"
    children = []
    for key in ("truenodeids", "falsenodeids"):
        child = nodes[key][~leaf_M]
        if ((child <= number[~leaf_M]) | (child >= size[~leaf_M])).any():
            return "expected children that come after their parent, in its tree"
        children.append(child + start[~leaf_M])
    reached = np.bincount(np.concatenate(children), minlength=len(tree))
    if (reached != ~begins).any():
        return "expected every node but the root to be the child of one"
    leaves = np.flatnonzero(leaf_M)
    if targets["treeids"] != tree[leaves].tolist() or targets["nodeids"] != number[leaves].tolist():
        return "expected one weight for every leaf, in order"
    return "" if not any(targets["ids"]) and np.isfinite(targets["weights"]).all() else "expected finite weights"
