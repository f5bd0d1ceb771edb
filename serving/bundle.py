"""Loading a bundle: every file is verified against the manifest, and only listed files are loaded.

BUNDLE/
    manifest.json                    versions, parity, and the sha256 of every other file
    model.onnx  [model.onnx.data]    inputs context.<feature>, candidates.<feature>, request.owner; outputs tasks.<task>
    spec.toml  fitted/  store/       the spec, the preprocessor, the latest row of every user and item
    golden/requests.arrow            golden requests, and
    golden/scores.arrow              their scores by torch
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
import pyarrow as pa
from google.protobuf.message import DecodeError

from rec import atomic
from rec.data import arrow_file
from rec.data import preprocessor as preprocessors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import schema
from rec.data.splits import SPLITS
from rec.errors import BundleError, DataError, SpecError, nearest
from rec.spec import BUNDLE_NAME, Id, Ids, Kept, Number, Spec, Vector, has_rows, parse, tasks
from serving import store, tree_nodes
from serving.store import EntityStore

FORMAT = 3
MODEL = "model.onnx"
OWNER = "request.owner"  # the input that says to which request each candidate belongs
REQUIRED = (MODEL, "spec.toml", "golden/requests.arrow", "golden/scores.arrow")
# no model of ours loops, and a loop may run for ever; operators of other domains are code that a graph brings along
_REFUSED, _DOMAINS = ("Loop", "Scan"), ("", "ai.onnx", "com.microsoft")
_TYPES: dict[int, str] = {int(onnx.TensorProto.INT64): "int64", int(onnx.TensorProto.FLOAT): "float32"}


@dataclass(frozen=True)
class Bundle:
    """Everything a scorer needs; `digest` is the sha256 of the manifest, which has the sha256 of every other file."""

    path: Path
    name: str
    digest: str
    spec: Spec
    preprocessor: Preprocessor
    store: EntityStore
    manifest: Mapping[str, Any]
    model: Path
    golden_rows: pa.RecordBatch
    golden_scores: Mapping[str, pa.Array]


def load(path: Path) -> Bundle:
    """Verify and open a bundle; BundleError says what is missing, changed, added, or does not agree."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle")
    refuse_others(path)
    manifest = verified_manifest(path)
    try:
        spec = parse((path / "spec.toml").read_text(encoding="utf-8"), where="spec.toml")
        golden_rows, golden_scores = _golden(path / "golden", spec)
        bundle = Bundle(
            path=path,
            name=manifest["name"],
            digest=digest_of(path),
            spec=spec,
            preprocessor=preprocessors.load(spec, path / "fitted"),
            store=store.load(spec, path / "store"),
            manifest=manifest,
            model=path / MODEL,
            golden_rows=golden_rows,
            golden_scores=golden_scores,
        )
    except (SpecError, DataError, BundleError) as error:
        raise BundleError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{path}: incomplete: {error!r}") from None
    _check_graph(bundle)
    return bundle


def refuse_others(path: Path) -> None:
    """BundleError for a folder that is no bundle at all, with the way to one where it is another step's output."""
    if (path / MODEL).exists():
        return
    if (path / "checkpoint").is_dir():
        raise BundleError(
            f"{path}: a trained model, not a bundle; `multigate export {path} --data DATA --out BUNDLE` makes one of it"
        )
    if (path / "bundle" / MODEL).exists():
        raise BundleError(f"{path}: no bundle; did you mean '{path / 'bundle'}'?")
    if any((path / split).is_dir() for split in SPLITS):
        raise BundleError(
            f"{path}: session tables, not a bundle; `multigate train` and `multigate export` make one of it"
        )


def output_names(spec: Spec) -> list[str]:
    """The names of a graph's outputs, in the order of `tasks.outputs`: `["tasks.click", "tasks.buy|click"]`.

    A graph has one space for all of its names, those of operators' results included, and these hold no dot.
    """
    return [f"tasks.{name}" for name in tasks.outputs(spec.tasks)]


def expected_inputs(spec: Spec) -> dict[str, tuple[str, list[str | int]]]:
    """The inputs of a graph of this spec: `{"context.history": ("int64", ["B", 20]), OWNER: ("int64", ["N"])}`."""
    inputs = {
        f"{side}.{name}": _input(feature, rows)
        for (side, features), rows in zip(spec.sides(), ("B", "N"), strict=True)
        for name, feature in features.items()
        if not isinstance(feature, Kept)
    }
    return {**inputs, OWNER: ("int64", ["N"])}


def _input(feature: Id | Ids | Number | Vector, rows: str) -> tuple[str, list[str | int]]:
    if isinstance(feature, Vector):
        return "float32", [rows, feature.size]
    if not has_rows(feature):
        return "float32", [rows]
    return "int64", [rows, feature.last] if isinstance(feature, Ids) else [rows]


def digest_of(path: Path) -> str:
    """The digest of a bundle: that of its manifest."""
    return atomic.sha256(path / "manifest.json")


def verified_manifest(path: Path) -> Mapping[str, Any]:
    """The manifest of a bundle, every file of which is there and unchanged; BundleError where one is not."""
    manifest = atomic.read_json(path / "manifest.json")
    where = f"{path}: manifest.json"
    version = manifest.get("format") if isinstance(manifest, dict) else manifest
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        hint = "; `multigate export` writes it anew" if older else ""
        raise BundleError(f"{where}: format: expected {FORMAT}, got {version!r}{hint}")
    for key, kind in (("name", str), ("files", dict), ("parity", dict)):
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{where}: {key}: expected a {kind.__name__}, got {manifest.get(key)!r}")
    if not re.fullmatch(BUNDLE_NAME, manifest["name"]):
        raise BundleError(f"{where}: name: expected a name as a spec has it, got {manifest['name'][:80]!r}")
    listed = manifest["files"]
    for name, entry in listed.items():
        if not _inside(name):
            raise BundleError(f"{where}: files: {name!r} is not a path inside the bundle")
        if not isinstance(entry, dict) or not {"sha256", "bytes"} <= set(entry):
            raise BundleError(f"{where}: files: {name}: expected sha256 and bytes, got {entry!r}")
    _check_files(path, listed)
    return manifest


def _check_files(path: Path, listed: Mapping[str, Any]) -> None:
    for file in sorted(path.rglob("*")):
        # files.verify sees links to files; a link to a folder would let listed files live elsewhere
        if file.is_symlink():
            name = file.relative_to(path).as_posix()
            raise BundleError(f"{path}: {name} is a symbolic link; a bundle holds its own files")
        if not file.is_dir() and file.stat().st_nlink > 1:
            name = file.relative_to(path).as_posix()
            raise BundleError(f"{path}: {name} is a hard link; a bundle holds its own files")
    atomic.verify(path, dict(listed))
    for name in REQUIRED:
        if name not in listed:
            raise BundleError(f"{path}: {name} is not in the manifest{nearest(name, listed)}")


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and "\\" not in name and ".." not in parts


def _golden(folder: Path, spec: Spec) -> tuple[pa.RecordBatch, dict[str, pa.Array]]:
    rows = arrow_file.read(folder / "requests.arrow", what="table of golden requests", full=True)
    scores = arrow_file.read(folder / "scores.arrow", what="table of golden scores", full=True)
    if rows.schema != schema(spec, labels=False):
        raise BundleError("golden/requests.arrow: made with another spec")
    batches = rows.combine_chunks().to_batches()
    if not batches:
        raise BundleError("golden/requests.arrow: expected at least one request, got none")
    missing = [name for name in tasks.outputs(spec.tasks) if name not in scores.column_names]
    if missing:
        raise BundleError(f"golden/scores.arrow: no scores of {missing[0]}{nearest(missing[0], scores.column_names)}")
    return batches[0], {name: scores[name].combine_chunks() for name in scores.column_names}


def _check_graph(bundle: Bundle) -> None:
    try:
        model = onnx.load(str(bundle.model), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"{bundle.path}: {MODEL}: not an ONNX graph: {error}") from None
    for location in _external(model):
        if not _inside(location) or location not in bundle.manifest["files"]:
            raise BundleError(f"{bundle.path}: {MODEL}: external data {location!r} is not listed in the manifest")
    sizes = sum(entry["bytes"] for entry in bundle.manifest["files"].values())
    for tensor in _tensors(model.graph):
        if any(size < 0 for size in tensor.dims) or prod(tensor.dims) > sizes:
            raise BundleError(
                f"{bundle.path}: {MODEL}: {tensor.name!r} has {prod(tensor.dims)} values, more than bytes"
            )
    for node in _nodes(model.graph):
        _check_node(node, f"{bundle.path}: {MODEL}")
    if model.functions:
        raise BundleError(f"{bundle.path}: {MODEL}: has local functions: {model.functions[0].name}")
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: _type_and_rank(value) for value in model.graph.input if value.name not in initial}
    expected = {name: (kind, len(shape)) for name, (kind, shape) in expected_inputs(bundle.spec).items()}
    _check_signature(bundle.path, "input", expected, inputs)
    outputs = dict.fromkeys(output_names(bundle.spec), ("float32", 1))
    _check_signature(
        bundle.path, "output", outputs, {value.name: _type_and_rank(value) for value in model.graph.output}
    )


def _check_node(node: onnx.NodeProto, where: str) -> None:
    """Raise BundleError for an operator that no model of ours has, and for trees that are not whole."""
    if (node.op_type, node.domain) == (tree_nodes.OPERATOR, tree_nodes.DOMAIN):
        try:
            tree_nodes.check(node)
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from None
    elif node.op_type in _REFUSED or node.domain not in _DOMAINS:
        raise BundleError(f"{where}: operator {node.op_type!r} of {node.domain or 'ONNX'} is refused")


def _type_and_rank(value: onnx.ValueInfoProto) -> tuple[str, int]:
    tensor = value.type.tensor_type
    return _TYPES.get(int(tensor.elem_type), f"type {tensor.elem_type}"), len(tensor.shape.dim)


def _check_signature(
    path: Path, what: str, expected: Mapping[str, tuple[str, int]], actual: Mapping[str, tuple[str, int]]
) -> None:
    where = f"{path}: {MODEL}"
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
