"""An ONNX graph put together by hand, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.graph.signature import OWNER

OPSETS = {"": 20, "ai.onnx.ml": 3}
_IR = 10  # the newest form of a file that ONNX Runtime is known to read
_TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


class GraphNodes:
    """Nodes in order, and the constants they read; every method returns the name of a result."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one result."""
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """A constant: ints are int64, floats float32."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def floats(self, name: str) -> str:
        """A result as float32."""
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def column(self, name: str) -> str:
        """[M] as a column [M, 1]."""
        return self.add("Unsqueeze", name, self.constant([1]))

    def of_candidates(self, name: str) -> str:
        """What is of requests [B, ...], for each of their candidates [N, ...]."""
        return self.add("Gather", name, OWNER)

    def save(self, path: Path, inputs: Mapping[str, Mapping[str, Any]], outputs: Mapping[str, str]) -> None:
        """Write the graph; `inputs` as a manifest has them, `outputs` {name: result [N]}."""
        for name, result in outputs.items():
            self._nodes.append(helper.make_node("Identity", [result], [name]))
        takes = [helper.make_tensor_value_info(name, _TYPES[x["type"]], x["shape"]) for name, x in inputs.items()]
        gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in outputs]
        graph = helper.make_graph(self._nodes, "baseline", takes, gives, list(self._constants.values()))
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="multigate")
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
