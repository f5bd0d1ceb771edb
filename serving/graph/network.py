"""A network as an ONNX graph, traced by torch; one graph for one request and for many, as B and N are free."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.ranker import Ranker
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import given
from serving.graph.signature import described_inputs, inputs_of, output_names

OPSET = 20


@torch.no_grad()  # what is served needs no gradient, and no part of the graph should be there for one
def write(model: Ranker, spec: Spec, example: RequestBatch, path: Path) -> dict[str, Any]:
    """Trace a ranker over plain tables to an ONNX file; its inputs and outputs as the manifest names them."""
    # it warns on every export that torchvision, which nothing here uses, is not installed
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    flat = inputs_of(example)
    graph = _Graph(model, list(flat), given(spec.tasks)).eval()
    traced = inputs_of(_tiled(example))
    values = tuple(torch.from_numpy(value.copy()) for value in traced.values())
    batch, rows = torch.export.Dim("B", min=1), torch.export.Dim("N", min=0)
    dims = tuple({0: batch if name.startswith("context.") else rows} for name in flat)
    with warnings.catch_warnings():
        # of names of axes, which are the ones asked for, and of its own tree classes
        warnings.filterwarnings("ignore", "# The axis name:", UserWarning)
        warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
        program = torch.onnx.export(
            graph,
            values,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(flat),
            output_names=output_names(spec),
            dynamic_shapes=(dims,),
            external_data=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=True)
    return {"inputs": described_inputs(flat), "outputs": output_names(spec)}


class _Graph(nn.Module):
    """A ranker as a function from a flat list of tensors to a tuple of outputs."""

    def __init__(self, model: Ranker, names: list[str], parents: Mapping[str, str | None]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.parents = parents

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        sides: dict[str, dict[str, Tensor]] = {"context": {}, "candidates": {}}
        for name, value in zip(self.names[:-1], values[:-1], strict=True):
            side, feature = name.split(".", 1)
            sides[side][feature] = value
        first = next(iter(sides["context"].values()), None)
        size = 1 if first is None else first.shape[0]
        return tuple(self.model.served(RequestBatch(size, **sides, owner=values[-1]), self.parents).values())


def _tiled(batch: RequestBatch) -> RequestBatch:
    """At least two requests and three candidates, so that the tracer takes no size for a constant."""
    times = 1 + 4 // max(1, min(batch.size, len(batch)))
    return batch.take(np.tile(np.arange(batch.size), times))
