"""Export of a trained run as a bundle: one ONNX graph, refused unless ONNX Runtime agrees with torch.

This and the network's graph (serving/graph/network.py) are the only places in serving/ that need torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rec.atomic import inventory, read_json, sha256, write_bytes, write_json
from rec.data import arrow_file, splits
from rec.data.loader import tensors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import schema, to_batch
from rec.errors import BundleError
from rec.output_folder import Origin, Overwrite, digest, replaced
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec, dump, sections
from rec.spec.tasks import given, outputs
from rec.training import baseline_run, checkpoint
from rec.training.run import load_run, trained_baseline
from serving import store as entity_store
from serving.bundle import FORMAT
from serving.graph import baseline, network
from serving.graph.signature import inputs_of, output_names
from serving.scorer import difference

VERSION = 4  # of the bundle: counts up when the same run gives other files
ENTRIES = ("spec.toml", "fitted", "store", "model.onnx", "model.onnx.data", "golden", "manifest.json")
TOLERANCE = 1e-5
_BLOCK = 1 << 22  # bytes copied at a time
GOLDEN = 64  # requests kept in the bundle with the scores torch gave them


def export(run: Path, out: Path, *, data: Path, progress: Progress, overwrite: Overwrite = "never") -> dict[str, Any]:
    """Write the bundle of a run's best epoch; its manifest.

    Golden requests are the first of the test split (or of the last split that has any). Raises BundleError when torch
    and ONNX Runtime differ by more than TOLERANCE on any output (relatively above 1); nothing is written then, and a
    bundle that is made again stays. FileExistsError when `out` holds anything else (rec/output_folder.py).
    """
    trained = _opened(run)
    about = origin(trained.spec, run, data)
    with replaced(out, about, overwrite=overwrite, progress=progress) as beside:
        if beside is None:
            return read_json(out / "manifest.json", dict)
        manifest = _fill(beside, trained, run, data, progress)
    progress.say(f"{trained.what} and ONNX Runtime differ by at most {manifest['parity']['max_difference']:.1e}")
    return manifest


@dataclass(frozen=True)
class _Trained:
    """A trained model: who scores in it, how it is written as a graph, and what it says of a numpy batch."""

    spec: Spec
    learnt: Preprocessor
    what: str
    write: Callable[[RequestBatch, Path], dict[str, Any]]
    served: Callable[[RequestBatch], Mapping[str, np.ndarray]]


def _opened(run: Path) -> _Trained:
    """The best epoch's network of a run, or its baseline."""
    if trained_baseline(run):
        fitted = baseline_run.load(run)
        write = partial(baseline.write, fitted)
        return _Trained(fitted.spec, fitted.learnt, fitted.spec.model["name"], write, fitted.score)
    spec, learnt, model = load_run(run)

    def served(batch: RequestBatch) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs_N = model.served(tensors(batch, torch.device("cpu")), given(spec.tasks))
        return {name: outputs_N[name].numpy() for name in outputs(spec.tasks)}

    return _Trained(spec, learnt, "torch", partial(network.write, model, spec), served)


def origin(spec: Spec, run: Path, data: Path) -> Origin:
    """What a bundle is made of, and what lies in its folder."""
    parts = {place: digest(part) for place, part in sections.of_everything(spec).items()}
    weights = checkpoint.digest(run)[:16]
    inputs = {"trained model": weights, "session tables": splits.digest(data)[:16]}
    return Origin("export", spec.name, {**inputs, **parts, "export version": VERSION}, ENTRIES, (run, data))


def _fill(beside: Path, trained: _Trained, run: Path, data: Path, progress: Progress) -> dict[str, Any]:
    """All files of a bundle; its manifest."""
    spec, learnt = trained.spec, trained.learnt
    rows = golden_rows(spec, data)
    write_bytes(beside / "spec.toml", dump(spec).encode())
    learnt.save(beside / "fitted")
    _copy_store(spec, data / "store", beside / "store", progress)
    progress.start("exporting the graph")
    names = trained.write(to_batch(rows, spec, learnt.encoders), beside / "model.onnx")
    progress.start("exporting golden requests", len(rows), "requests")
    parity = _golden(trained, rows, beside)
    progress.advance(len(rows))
    manifest = _manifest(spec, names, parity) | {"run": _origin(run), "files": inventory(beside)}
    write_json(beside / "manifest.json", manifest)
    return manifest


def _copy_store(spec: Spec, store: Path, target: Path, progress: Progress) -> None:
    """The rows of users and items, table by table; BundleError where they are not those of the spec."""
    if not store.exists():
        return
    try:
        entity_store.load(spec, store)
    except BundleError as error:
        raise BundleError(f"{store}: {error}; `multigate features` writes it anew") from None
    tables = [file for file in sorted(store.rglob("*")) if file.is_file()]
    progress.start("exporting the store", sum(file.stat().st_size for file in tables), "bytes")
    for file in tables:
        place = target / file.relative_to(store)
        place.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, place.open("wb") as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
                progress.advance(len(block))


def golden_rows(spec: Spec, data: Path) -> pa.RecordBatch:
    """The first requests with candidates of the latest split that has any, without their labels."""
    for split in ("test", "validation", "train"):
        for rows in splits.read(data, split, spec):
            shown = rows.filter(pc.greater(pc.list_value_length(rows["candidates"]), 0))
            if len(shown):
                return _unlabelled(shown.slice(0, GOLDEN), spec)
    raise BundleError(f"{data}: no requests to check the export against")


def _golden(trained: _Trained, rows: pa.RecordBatch, folder: Path) -> dict[str, Any]:
    """Write golden requests with the model's own scores, and measure how far ONNX Runtime is from them."""
    spec = trained.spec
    batch = to_batch(rows, spec, trained.learnt.encoders)
    scores = trained.served(batch)
    (folder / "golden").mkdir()
    arrow_file.write(folder / "golden" / "requests.arrow", pa.Table.from_batches([rows]))
    arrow_file.write(
        folder / "golden" / "scores.arrow",
        pa.table({name: pa.array(value, pa.float32()) for name, value in scores.items()}),
    )
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    scores_onnx = cast("list[np.ndarray]", session.run(output_names(spec), inputs_of(batch)))
    worst = float(np.max([difference(mine, theirs) for mine, theirs in zip(scores.values(), scores_onnx, strict=True)]))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"export refused: {trained.what} and ONNX Runtime differ by {worst:.1e}, at most {TOLERANCE:.0e} is allowed"
        )
    return {
        "max_difference": worst,
        "measured_as": f"|onnx - {trained.what}| / max(1, |{trained.what}|)",
        "tolerance": TOLERANCE,
        "requests": batch.size,
        "candidates": len(batch),
        "spread": {name: float(value.std()) for name, value in scores.items()},
    }


def _manifest(spec: Spec, names: Mapping[str, Any], parity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": spec.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            **{name: version(name) for name in ("multigate", "torch", "onnx")},
            "onnxruntime": onnxruntime.__version__,  # two packages bring it, and only one of them bears its name
        },
        "model": spec.model.get("name", "mmoe"),
        "opset": network.OPSET,
        **names,
        "parity": parity,
    }


def _origin(run: Path) -> dict[str, Any]:
    refit = checkpoint.refit_of(run)
    return {
        "spec_sha256": sha256(run / "spec.toml"),
        "weights_sha256": checkpoint.digest(run),
        **({} if refit is None else {"refit": refit}),
    }


def _unlabelled(rows: pa.RecordBatch, spec: Spec) -> pa.RecordBatch:
    """The rows as a request to be scored has them: the same structs, less the labels."""
    shape = schema(spec, labels=False)
    return pa.RecordBatch.from_pylist(rows.to_pylist(), schema=shape)
