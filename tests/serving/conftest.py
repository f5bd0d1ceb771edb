"""The tiny shop's bundle, opened; and copies of it to be spoilt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pyarrow as pa
import pytest

from rec.atomic import inventory, read_json, write_json
from rec.data import arrow_file
from rec.data.session_table import to_batch
from rec.request import RequestBatch
from serving.bundle import Bundle, load
from serving.online.rank import RankService
from serving.scorer import Scorer

NOW = 1_772_928_000_000_000  # 2026-03-08T00:00:00Z
IDS = {"time": "2026-03-09T10:00:00Z", "context": {"user_id": 7}}


@pytest.fixture(scope="session")
def opened(bundle: Path) -> Bundle:
    """The bundle, verified."""
    return load(bundle)


@pytest.fixture(scope="session")
def scorer(opened: Bundle) -> Scorer:
    """Its scorer on one thread."""
    return Scorer(opened, threads=1)


@pytest.fixture(scope="session")
def service(opened: Bundle, scorer: Scorer) -> RankService:
    """Its rank service, which names every request `generated`."""
    return RankService(opened, scorer, new_id=lambda: "generated")


@pytest.fixture
def spoilt(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def ask(service: RankService) -> Callable[..., dict[str, Any]]:
    """Rank a request given as Python values; the answer likewise."""

    def rank(**request: Any) -> dict[str, Any]:
        return json.loads(service.rank(json.dumps(request).encode(), NOW).body)

    return rank


def signed(folder: Path, **changes: Any) -> Path:
    """A manifest that vouches for the folder as it is now, as a careless or hostile exporter would write it."""
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "files": inventory(folder), **changes})
    return folder


def shifted(bundle: Path, folder: Path, by: float) -> Path:
    """A bundle whose scores are others: every bias of its graph is moved, and its golden scores with them."""
    shutil.copytree(bundle, folder)
    model = onnx.load(str(folder / "model.onnx"))
    for tensor in model.graph.initializer:
        if "bias" in tensor.name:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(by), tensor.name)
            )
    (folder / "model.onnx.data").unlink()
    onnx.save(model, str(folder / "model.onnx"))
    opened = load(signed(folder))
    batch = to_batch(opened.golden_rows, opened.spec, opened.preprocessor.encoders)
    scores = Scorer(opened, threads=1).score(batch)
    arrow_file.write(folder / "golden" / "scores.arrow", pa.table(scores))
    return signed(folder)


def items(*ids: int) -> list[dict[str, int]]:
    """Candidates by their ids."""
    return [{"item_id": item} for item in ids]


def encoded(service: RankService, body: bytes) -> RequestBatch | None:
    """The batch of a request of known ids alone, from the encoded store; None of any other."""
    request = service._parser.parse(body, NOW, lambda: "generated")
    rows = service._known(request)
    return None if rows is None or service._encoded_store is None else service._encoded_store.batch(*rows, request.time)
