"""Trees as arrays: what LightGBM's text model says, with thresholds that float32 columns are on the same side of.

    x <= threshold goes to the left; NaN goes where `left_if_missing` says; the sum of the leaves is the raw score.

A column x is float32 and LightGBM's thresholds t are float64. The largest float32 that is not above t has the same
columns below and above: x <= t exactly if x <= t32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rec.errors import BundleError

_BLOCK = 8192  # candidates that go through a tree at a time
_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of decision_type; the two above them are how missing values are treated
_MISSING_IS_ZERO, _MISSING_IS_NAN = 0, 2


@dataclass(frozen=True)
class Trees:
    """T trees of M nodes and K leaves in all.

    `root` [T] and the children `left` and `right` [M] are numbers of nodes, or ~leaf where negative; a child comes
    after its parent.
    """

    root: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    left_if_missing: np.ndarray
    leaf: np.ndarray

    def raw(self, columns_NF: np.ndarray) -> np.ndarray:
        """The sum of the leaves that every row reaches [N] float64."""
        out = np.zeros(len(columns_NF))
        for start in range(0, len(columns_NF), _BLOCK):
            block_FN = np.ascontiguousarray(columns_NF[start : start + _BLOCK].T)
            for root in self.root:
                out[start : start + _BLOCK] += self.leaf[~self._reached(block_FN, int(root))]
        return out

    def _reached(self, block_FN: np.ndarray, root: int) -> np.ndarray:
        """The leaf that each row reaches in one tree, as ~leaf [n]."""
        node = np.full(block_FN.shape[1], root)
        going = np.arange(len(node)) if root >= 0 else np.zeros(0, np.int64)
        while len(going):
            at = node[going]
            value = block_FN[self.column[at], going]
            left = np.where(np.isnan(value), self.left_if_missing[at], value <= self.threshold[at])
            node[going] = np.where(left, self.left[at], self.right[at])
            going = going[node[going] >= 0]
        return node


def below(threshold: np.ndarray) -> np.ndarray:
    """The largest finite float32 that is not above each float64; infinity is where only missing values go right.

    >>> below(np.array([0.1]))[0] <= 0.1 < np.nextafter(below(np.array([0.1]))[0], np.float32(1))
    True
    """
    with np.errstate(over="ignore"):
        nearest = threshold.astype(np.float32)
    lower = np.where(nearest > threshold, np.nextafter(nearest, np.float32("-inf")), nearest)
    return np.minimum(lower, np.finfo(np.float32).max)


def parse(text: str, columns: int, where: str) -> Trees:
    """The trees in LightGBM's text model; BundleError for what is not one over so many columns, or has other splits."""
    blocks = text.partition("\nend of trees")[0].split("\nTree=")[1:]
    try:
        trees = [_tree(dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line)) for block in blocks]
    except (KeyError, ValueError) as error:
        raise BundleError(f"{where}: not a text model of LightGBM: {error!r:.80}") from None
    if not trees:
        raise BundleError(f"{where}: not a text model of LightGBM: it has no tree")
    joined = _joined(trees)
    if (joined.column < 0).any() or (joined.column >= columns).any():
        raise BundleError(f"{where}: expected splits of {columns} columns, got one of column {joined.column.max()}")
    return joined


def read(path: Path, columns: int) -> Trees:
    """The trees of a file; BundleError as `parse`."""
    return parse(path.read_text(encoding="utf-8"), columns, str(path))


def _tree(fields: Mapping[str, str]) -> Trees:
    leaves = int(fields["num_leaves"])
    if int(fields.get("num_cat", "0")) or int(fields.get("is_linear", "0")):
        raise ValueError("categorical splits and linear leaves are not read")
    leaf = _numbers(fields["leaf_value"], leaves)
    if leaves == 1:
        none = np.zeros(0, np.int64)
        return Trees(np.array([-1]), none, np.zeros(0, np.float32), none, none, np.zeros(0, bool), leaf)
    decision = _numbers(fields["decision_type"], leaves - 1).astype(np.int64)
    column, threshold = (_numbers(fields[key], leaves - 1) for key in ("split_feature", "threshold"))
    missing = decision >> 2
    if (decision & _CATEGORICAL).any() or not np.isin(missing, (_MISSING_IS_ZERO, _MISSING_IS_NAN)).all():
        raise ValueError("a split that is neither of a number, nor of a missing one")
    # where training had no missing value, LightGBM takes NaN for 0
    left_if_missing = np.where(missing == _MISSING_IS_NAN, (decision & _DEFAULT_LEFT) > 0, threshold >= 0)
    left, right = (_numbers(fields[f"{side}_child"], leaves - 1).astype(np.int64) for side in ("left", "right"))
    for child in (left, right):
        if (child <= np.where(child < 0, -leaves - 1, np.arange(leaves - 1))).any() or (child >= leaves - 1).any():
            raise ValueError("a node whose child comes before it, or is not there")
    return Trees(np.zeros(1, np.int64), column.astype(np.int64), below(threshold), left, right, left_if_missing, leaf)


def _numbers(text: str, count: int) -> np.ndarray:
    values = np.array([float(word) for word in text.split()])
    if len(values) != count or np.isnan(values).any():
        raise ValueError(f"expected {count} numbers, got {text!r:.40}")
    return values


def _joined(trees: list[Trees]) -> Trees:
    nodes = np.cumsum([0, *(len(tree.column) for tree in trees)])
    leaves = np.cumsum([0, *(len(tree.leaf) for tree in trees)])

    def moved(child: np.ndarray, place: int) -> np.ndarray:
        return np.where(child >= 0, child + nodes[place], child - leaves[place])

    return Trees(
        np.concatenate([moved(tree.root, place) for place, tree in enumerate(trees)]),
        np.concatenate([tree.column for tree in trees]),
        np.concatenate([tree.threshold for tree in trees]),
        np.concatenate([moved(tree.left, place) for place, tree in enumerate(trees)]),
        np.concatenate([moved(tree.right, place) for place, tree in enumerate(trees)]),
        np.concatenate([tree.left_if_missing for tree in trees]),
        np.concatenate([tree.leaf for tree in trees]),
    )
