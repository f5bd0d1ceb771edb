from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rec.atomic import read_json, write_json
from rec.errors import BundleError
from serving.bundle import load
from serving.graph.signature import expected_inputs
from tests.serving.conftest import signed


def refused(path: Path) -> str:
    """The text of the error that opening a bundle ends in."""
    with pytest.raises(BundleError) as error:
        load(path)
    return str(error.value)


def test_a_whole_bundle_opens(opened, bundle):
    """Everything in the folder is parsed, and its digest is that of the manifest."""
    assert opened.name == "tiny-shop"
    assert opened.path == bundle
    assert len(opened.digest) == 64
    assert set(opened.golden_scores) == {"click", "buy", "buy|click"}


def test_one_changed_byte_in_any_file_is_refused(spoilt):
    """Whatever the file, and wherever the byte: the error names the file."""
    for name in read_json(spoilt / "manifest.json")["files"]:
        whole = (spoilt / name).read_bytes()
        place = len(whole) // 2
        (spoilt / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert refused(spoilt) == f"{spoilt}: {name} was changed: its sha256 is not the manifest's"
        (spoilt / name).write_bytes(whole)


def test_a_missing_file_is_refused(spoilt):
    """A file that the manifest lists must be there."""
    (spoilt / "golden/scores.arrow").unlink()
    assert "golden/scores.arrow is listed in the manifest but is not there" in refused(spoilt)


def test_a_file_too_many_is_refused(spoilt):
    """A file that the manifest does not list could be read by something some day."""
    (spoilt / "fitted/notes.txt").write_text("x")
    assert "fitted/notes.txt is not listed in the manifest" in refused(spoilt)


@pytest.mark.parametrize("name", ["spec.toml", "fitted"])
def test_a_symbolic_link_is_refused(spoilt, tmp_path, name):
    """To a file or to a folder: a bundle holds its own files."""
    (spoilt / name).rename(tmp_path / "elsewhere")
    (spoilt / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} is a symbolic link; a bundle holds its own files" in refused(spoilt)


def test_no_folder_is_no_bundle(tmp_path):
    """A path that does not exist is said to be no bundle."""
    assert refused(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such bundle"
    assert "manifest.json: missing" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 4}, "format: expected 3, got 4"),
        ({"format": 2}, "format: expected 3, got 2; `multigate export` writes it anew"),
        ({"name": None}, "name: expected a str, got None"),
        ({"files": {"../x": {"sha256": "", "bytes": 0}}}, "files: '../x' is not a path inside the bundle"),
        ({"files": {"/etc/passwd": {}}}, "files: '/etc/passwd' is not a path inside the bundle"),
        ({"files": {"spec.toml": 3}}, "files: spec.toml: expected sha256 and bytes, got 3"),
    ],
)
def test_a_strange_manifest_is_refused(spoilt, change, text):
    """The manifest is checked before anything it names is opened."""
    manifest = read_json(spoilt / "manifest.json")
    write_json(spoilt / "manifest.json", manifest | change)
    assert text in refused(spoilt)


def test_a_manifest_that_is_no_json_is_refused(spoilt):
    """Truncated in the middle of a copy, for example."""
    (spoilt / "manifest.json").write_text('{"format": 1')
    assert "manifest.json: not JSON" in refused(spoilt)


def test_a_manifest_without_the_graph_is_refused(spoilt):
    """Leaving a file out of folder and manifest does not help."""
    (spoilt / "model.onnx").unlink()
    assert "model.onnx is not in the manifest" in refused(signed(spoilt))


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "unlisted.data", "", "a/../../x"])
def test_external_data_outside_the_manifest_is_refused(spoilt, location):
    """A graph may only map files whose digests the manifest holds."""
    model = onnx.load(str(spoilt / "model.onnx"), load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (spoilt / "model.onnx").write_bytes(model.SerializeToString())
    assert f"external data {location!r} is not listed in the manifest" in refused(signed(spoilt))


def test_external_data_in_a_nested_tensor_is_refused(spoilt):
    """Constants and sparse tensors hide locations that the checker of onnx has overlooked before."""
    model = onnx.load(str(spoilt / "model.onnx"), load_external_data=False)
    hidden = numpy_helper.from_array(np.zeros(2, np.float32))
    hidden.data_location = onnx.TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=hidden))
    (spoilt / "model.onnx").write_bytes(model.SerializeToString())
    assert "external data '../secret' is not listed in the manifest" in refused(signed(spoilt))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("candidates.price", "candidates.prize", "no input 'candidates.price', which the spec describes; did you mean"),
        ("context.age", None, "no input 'context.age', which the spec describes"),
        (None, "context.extra", "input 'context.extra' is not in the spec"),
    ],
)
def test_a_graph_of_another_spec_is_refused(spoilt, old, new, text):
    """The error names the input that one has and the other has not."""
    model = onnx.load(str(spoilt / "model.onnx"), load_external_data=False)
    inputs = [value for value in model.graph.input if value.name != old]
    if new is not None:
        inputs.append(helper.make_tensor_value_info(new, onnx.TensorProto.FLOAT, ["N"]))
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    (spoilt / "model.onnx").write_bytes(model.SerializeToString())
    assert text in refused(signed(spoilt))


def test_an_input_of_another_type_is_refused(spoilt):
    """Type and number of dimensions are part of a graph's signature."""
    model = onnx.load(str(spoilt / "model.onnx"), load_external_data=False)
    price = next(value for value in model.graph.input if value.name == "candidates.price")
    price.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    (spoilt / "model.onnx").write_bytes(model.SerializeToString())
    text = "input 'candidates.price': expected float32, 1 dimensions, got type 11, 1"
    assert text in refused(signed(spoilt))


def test_a_graph_that_is_none_is_refused(spoilt):
    """Bytes that are no protobuf, signed or not."""
    (spoilt / "model.onnx").write_bytes(b"\xff" * 100)
    assert "model.onnx: not an ONNX graph" in refused(signed(spoilt))


@pytest.mark.parametrize("name", ["golden/requests.arrow", "golden/scores.arrow", "store/context.arrow"])
def test_a_truncated_table_is_refused(spoilt, name):
    """Half an Arrow file, although its digest is right."""
    whole = (spoilt / name).read_bytes()
    (spoilt / name).write_bytes(whole[: len(whole) // 2])
    text = refused(signed(spoilt))
    assert name.split("/")[1] in text
    assert "not a" in text


def test_a_broken_spec_is_refused(spoilt):
    """A spec is read as strictly from a bundle as from anywhere."""
    (spoilt / "spec.toml").write_text('nam = "x"')
    assert "spec.toml: nam: unknown key; did you mean 'name'?" in refused(signed(spoilt))


def test_expected_inputs_follow_the_spec(spec):
    """Kept columns are no inputs, lists have their length, owner is last."""
    inputs = expected_inputs(spec)
    assert inputs["context.clicked"] == ("int64", ["B", 5])
    assert inputs["candidates.price"] == ("float32", ["N"])
    assert "candidates.position" not in inputs
    assert list(inputs)[-1] == "request.owner"


def test_loading_needs_neither_torch_nor_polars(bundle):
    """A server's process holds only what a server needs."""
    code = f"""
import json, sys
from pathlib import Path
from serving import batch
from serving.server import worker
worker.load(Path({str(bundle)!r}))
print(json.dumps(sorted({{"torch", "polars"}} & set(sys.modules))))
"""
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(process.stdout) == []


def test_local_functions_are_refused(spoilt):
    """A graph is operators that ONNX Runtime brings, and nothing it brings along."""
    model = onnx.load(str(spoilt / "model.onnx"), load_external_data=False)
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("here", "mine", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))
    (spoilt / "model.onnx").write_bytes(model.SerializeToString())
    assert "model.onnx: has local functions: mine" in refused(signed(spoilt))


def test_a_manifest_of_something_else_is_refused(spoilt):
    """Scales that are no scales, vouched for all the same."""
    write_json(spoilt / "fitted" / "scales.json", {"price": {"mean": 0.0}})
    assert "incomplete: TypeError" in refused(signed(spoilt))


def changed_graph(folder, change):
    """A bundle whose graph was changed, and whose manifest vouches for it."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    change(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return signed(folder)


@pytest.mark.parametrize("place", ["top", "nested"])
def test_a_loop_is_refused(spoilt, place):
    """It may run for ever, and no model needs one; nor is it hidden in a branch."""
    body = helper.make_graph([], "body", [], [])
    loop = helper.make_node("Loop", ["", ""], [], body=body)
    branch = helper.make_graph([loop], "branch", [], [])
    node = loop if place == "top" else helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch)
    assert "operator 'Loop' of ONNX is refused" in refused(changed_graph(spoilt, lambda m: m.graph.node.append(node)))


def test_operators_of_others_are_refused(spoilt):
    """They are code that comes with a graph, or a library that is not ours."""
    node = helper.make_node("Run", [], [], domain="my.ops")
    assert "operator 'Run' of my.ops" in refused(changed_graph(spoilt, lambda m: m.graph.node.append(node)))


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 31, 1 << 31], [-1, 4]])
def test_a_tensor_larger_than_the_bundle_is_refused(spoilt, dims):
    """Its size is a claim; memory is not allocated for it."""

    def change(model):
        model.graph.initializer.append(onnx.TensorProto(name="huge", data_type=1, dims=dims))

    assert "'huge' has" in refused(changed_graph(spoilt, change))


def test_a_hard_link_is_refused(spoilt, tmp_path):
    """Whoever holds the other name could change the file after it was verified."""
    os.link(spoilt / "model.onnx", tmp_path / "other")
    assert "model.onnx is a hard link; a bundle holds its own files" in refused(spoilt)


def corrupted(path, seed):
    """Eight bytes of an Arrow file changed somewhere."""
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    place = int(random.integers(8, len(data) - 16))
    data[place : place + 8] = random.bytes(8)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(30))
def test_a_corrupted_table_is_refused_or_whole(spoilt, seed):
    """Eight bytes anywhere in golden requests or the store: an error, or a table that is valid in every offset."""
    name = ("golden/requests.arrow", "store/candidates.arrow")[seed % 2]
    corrupted(spoilt / name, seed)
    try:
        opened = load(signed(spoilt))
    except BundleError:
        return
    rows = opened.golden_rows if seed % 2 == 0 else opened.store.candidates.rows
    rows.validate(full=True)
