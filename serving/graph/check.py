"""A graph, checked before ONNX Runtime loads it: operators, sizes and files, and the inputs and outputs of its spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from rec.errors import BundleError, nearest
from rec.spec import Spec
from serving.graph import tree_check
from serving.graph.signature import expected_inputs, output_names

# no model of ours loops, and a loop may run for ever; operators of other domains are code that a graph brings along
_REFUSED, _DOMAINS = ("Loop", "Scan"), ("", "ai.onnx", "com.microsoft")
_TYPES: dict[int, str] = {int(onnx.TensorProto.INT64): "int64", int(onnx.TensorProto.FLOAT): "float32"}


def check(model: Path, listed: Mapping[str, Any], spec: Spec) -> None:
    """Raise BundleError for a graph that is not one of ours, or not of this spec.

    `listed` are the files of the bundle by their path in it, as verified, with their "bytes".
    """
    where = f"{model.parent}: {model.name}"
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"{where}: not an ONNX graph: {error}") from None
    for location in _external(proto):
        if location not in listed:
            raise BundleError(f"{where}: external data {location!r} is not listed in the manifest")
    size = sum(entry["bytes"] for entry in listed.values())
    for tensor in _tensors(proto.graph):
        if any(count < 0 for count in tensor.dims) or prod(tensor.dims) > size:
            dims = list(tensor.dims)
            raise BundleError(f"{where}: {tensor.name!r} has dimensions {dims}, impossible in a bundle of {size} bytes")
    for node in _nodes(proto.graph):
        _check_node(node, where)
    if proto.functions:
        raise BundleError(f"{where}: has local functions: {proto.functions[0].name}")
    initial = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: _type_and_rank(value) for value in proto.graph.input if value.name not in initial}
    expected = {name: (kind, len(shape)) for name, (kind, shape) in expected_inputs(spec).items()}
    _check_signature(where, "input", expected, inputs)
    outputs = {value.name: _type_and_rank(value) for value in proto.graph.output}
    _check_signature(where, "output", dict.fromkeys(output_names(spec), ("float32", 1)), outputs)


def _check_node(node: onnx.NodeProto, where: str) -> None:
    """Raise BundleError for an operator that no model of ours has, and for trees that are not whole."""
    if (node.op_type, node.domain) == (tree_check.OPERATOR, tree_check.DOMAIN):
        try:
            tree_check.check(node)
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from None
    elif node.op_type in _REFUSED or node.domain not in _DOMAINS:
        raise BundleError(f"{where}: operator {node.op_type!r} of {node.domain or 'ONNX'} is refused")


def _type_and_rank(value: onnx.ValueInfoProto) -> tuple[str, int]:
    tensor = value.type.tensor_type
    return _TYPES.get(int(tensor.elem_type), f"type {tensor.elem_type}"), len(tensor.shape.dim)


def _check_signature(
    where: str, what: str, expected: Mapping[str, tuple[str, int]], actual: Mapping[str, tuple[str, int]]
) -> None:
    for name, (kind, rank) in expected.items():
        if name not in actual:
            raise BundleError(f"{where}: no {what} {name!r}, which the spec describes{nearest(name, actual)}")
        if actual[name] != (kind, rank):
            got, got_rank = actual[name]
            raise BundleError(f"{where}: {what} {name!r}: expected {kind}, {rank} dimensions, got {got}, {got_rank}")
    for name in actual:
        if name not in expected:
            raise BundleError(f"{where}: {what} {name!r} is not in the spec{nearest(name, expected)}")


def _external(model: onnx.ModelProto) -> Iterator[str]:
    """The files of all external tensors of a graph, including sparse, nested and constant ones."""
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
