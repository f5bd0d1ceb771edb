"""Trees, walked one row at a time in float64, as LightGBM's JSON dump has them."""

from __future__ import annotations

import math
from typing import Any


def raw(dump: dict[str, Any], row: list[float]) -> float:
    """The sum of the leaves that a row reaches."""
    return sum(_leaf(tree["tree_structure"], row) for tree in dump["tree_info"])


def _leaf(node: dict[str, Any], row: list[float]) -> float:
    while "leaf_value" not in node:
        value = row[node["split_feature"]]
        if math.isnan(value) and node["missing_type"] == "NaN":
            left = node["default_left"]
        else:
            left = (0.0 if math.isnan(value) else value) <= float(node["threshold"])
        node = node["left_child" if left else "right_child"]
    return node["leaf_value"]
