from __future__ import annotations

import re
import shutil

import pyarrow as pa
import pytest
import torch

from rec.atomic import read_json
from rec.data import arrow_file, splits
from rec.data.session_table import schema
from rec.errors import BundleError
from rec.progress import Silent
from serving import export
from serving.graph import network


def test_an_export_that_disagrees_with_torch_is_refused_and_leaves_nothing(run, data, tmp_path, monkeypatch):
    """A weight that changes between the graph and the check, as a wrong operator would look."""
    honest = network.write

    def planted(model, *rest):
        names = honest(model, *rest)
        with torch.no_grad():
            model.objective.heads.prior.add_(0.1)
        return names

    monkeypatch.setattr(network, "write", planted)
    with pytest.raises(BundleError, match=r"export refused: torch and ONNX Runtime differ by \d.*e-0\d, at most 1e-05"):
        export.export(run, tmp_path / "bundle", data=data, progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_says_how_far_they_differ(bundle):
    """On how many requests, and that scores had a spread for a difference to show in."""
    parity = read_json(bundle / "manifest.json")["parity"]
    assert 0 <= parity["max_difference"] <= parity["tolerance"] == export.TOLERANCE
    assert parity["measured_as"] == "|onnx - torch| / max(1, |torch|)"
    assert parity["requests"] == export.GOLDEN
    assert all(spread > 0 for spread in parity["spread"].values())


def test_a_store_of_before_is_refused(run, data, tmp_path):
    """Its rows do not say when they were true; what writes them anew is named, and nothing is left."""
    mine = shutil.copytree(data, tmp_path / "data")
    table = arrow_file.read(mine / "store" / "context.arrow", what="table")
    (mine / "store" / "context.arrow").unlink()
    arrow_file.write(mine / "store" / "context.arrow", table.drop_columns(["@as_of", "@seen"]))
    text = (
        "context.arrow: @as_of: expected timestamp[us, tz=UTC], got no such column; `multigate features` writes it anew"
    )
    with pytest.raises(BundleError, match=re.escape(text)):
        export.export(run, tmp_path / "bundle", data=mine, progress=Silent())
    assert not (tmp_path / "bundle").exists()


def emptied(data, spec, folder):
    """The data with the candidates of every request taken away."""
    mine = shutil.copytree(data, folder / "data")
    for split in splits.SPLITS:
        for path in splits.files(mine, split):
            rows = [{**row, "candidates": []} for block in splits.read_part(path, spec) for row in block.to_pylist()]
            splits.write(path, [pa.RecordBatch.from_pylist(rows, schema=schema(spec))], schema(spec))
    return mine


def test_golden_requests_have_candidates(data, spec, tmp_path):
    """A split in which nothing was shown is passed over; when all are, there is nothing to check against."""
    mine = emptied(data, spec, tmp_path)
    with pytest.raises(BundleError, match="no requests to check the export against"):
        export.golden_rows(spec, mine)
    shutil.copytree(data / "validation", mine / "validation", dirs_exist_ok=True)
    golden = export.golden_rows(spec, mine)
    first = next(splits.read(data, "validation", spec)).slice(0, len(golden))
    assert golden["request_id"].to_pylist() == first["request_id"].to_pylist()
    assert "click" not in golden["candidates"].to_pylist()[0][0]
