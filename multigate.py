"""Multigate from Python: the verbs of the command line as functions, and the few types they take and give.

    spec = multigate.load_spec("spec.toml")
    multigate.build_tables(spec, "data")
    multigate.train(spec, "data", "model")
    multigate.export("model", "bundle", data="data")

Importing this module imports neither torch nor polars: what a name needs is imported when it is used. docs/python.md
shows the whole way.
"""

from __future__ import annotations

import importlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rec.progress import Progress, Silent

if TYPE_CHECKING:
    import pyarrow as pa

    from rec.data.session_table import to_batch
    from rec.errors import BundleError, DataError, InstallationError, SpecError
    from rec.output_folder import Overwrite
    from rec.request import RequestBatch
    from rec.spec import Spec, Strict
    from serving.bundle import Bundle
    from serving.scorer import Scorer

    __version__: str

__all__ = [
    "Bundle",
    "BundleError",
    "DataError",
    "InstallationError",
    "Progress",
    "RequestBatch",
    "Scorer",
    "Spec",
    "SpecError",
    "Strict",
    "__version__",
    "build_tables",
    "evaluate",
    "export",
    "load_bundle",
    "load_spec",
    "parse_spec",
    "ranker",
    "read_tables",
    "score",
    "score_requests",
    "to_batch",
    "train",
]

AnyPath = str | PathLike[str]
QUIET = Silent()
_HOMES = {
    "Bundle": "serving.bundle",
    "BundleError": "rec.errors",
    "DataError": "rec.errors",
    "InstallationError": "rec.errors",
    "RequestBatch": "rec.request",
    "Scorer": "serving.scorer",
    "Spec": "rec.spec",
    "SpecError": "rec.errors",
    "Strict": "rec.spec",
    "to_batch": "rec.data.session_table",
}


def __getattr__(name: str) -> Any:
    """A type or function of another module, imported when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("multigate")
    if name not in _HOMES:
        raise AttributeError(f"module 'multigate' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_spec(path: AnyPath, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML file, with overrides as --set takes them ("train.epochs=1"); SpecError when it is wrong."""
    from rec import spec as specs

    return specs.load(Path(path), overrides)


def parse_spec(text: str, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML text."""
    from rec import spec as specs

    return specs.parse(text, overrides=overrides)


def build_tables(
    spec: Spec,
    data: AnyPath,
    *,
    base: AnyPath = ".",
    workers: int | None = None,
    progress: Progress = QUIET,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Raw logs to session tables in the folder `data`; its manifest, with the findings of the checks.

    Relative paths in the spec start from `base`. Raises DataError when the logs leak or contradict the spec.
    """
    from features import sources
    from features.logs import copies
    from features.pipeline import build
    from pipelines.cli import fingerprint
    from rec.output_folder import refuse_overlap

    copies.forget()  # a process may build twice, and a database change between
    refuse_overlap(Path(data), fingerprint.inputs(spec, Path(base)))
    tomorrow = int((time.time() + 86_400) * 1_000_000)
    with copies.shown_by(progress):
        logs, stamp = sources.read(spec, Path(base)), fingerprint.of_logs(spec, Path(base))
    how = build.BuildOptions(workers=workers, latest=tomorrow, stamp=stamp, overwrite=overwrite)
    return build.build(spec, logs, Path(data), progress=progress, how=how)


def read_tables(spec: Spec, data: AnyPath, split: str) -> Iterator[pa.RecordBatch]:
    """The session tables of a split ("train", "validation", "test"), one row per request, in blocks that fit memory."""
    from rec.data import splits

    return splits.read(Path(data), split, spec)


def train(
    spec: Spec,
    data: AnyPath,
    model: AnyPath,
    *,
    base: AnyPath = ".",
    source: AnyPath | None = None,
    progress: Progress = QUIET,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Train on the session tables in `data`, into the folder `model`; a summary of the best epoch.

    It starts from the weights of the trained model `source` where one is given. Relative paths in the spec start from
    `base`.
    """
    from rec.training import trainer
    from rec.training.beginning import Beginning

    start = Beginning(None if source is None else Path(source), Path(base))
    return trainer.train(spec, Path(data), Path(model), progress=progress, overwrite=overwrite, start=start)


def evaluate(model: AnyPath, data: AnyPath, *, split: str = "test", progress: Progress = QUIET) -> dict[str, Any]:
    """The metrics of a trained model or of a bundle on a split; nothing is written.

    >>> evaluate("model", "data")["outputs"]["click"]["auc"]
    0.7
    """
    if (Path(model) / "model.onnx").is_file():
        from serving.evaluate_bundle import evaluate_bundle

        return evaluate_bundle(Path(model), Path(data), split=split, progress=progress)
    from rec.training.run import evaluate_run

    return evaluate_run(Path(model), Path(data), split=split, progress=progress)


def export(
    model: AnyPath, bundle: AnyPath, *, data: AnyPath, progress: Progress = QUIET, overwrite: Overwrite = "never"
) -> dict[str, Any]:
    """A trained model to a bundle; its manifest. BundleError unless torch and ONNX Runtime agree."""
    from serving import export as exporter

    return exporter.export(Path(model), Path(bundle), data=Path(data), progress=progress, overwrite=overwrite)


def load_bundle(path: AnyPath) -> Bundle:
    """A bundle, verified and opened; BundleError says what is missing, changed or added."""
    from serving import bundle

    return bundle.load(Path(path))


def score(
    bundle: AnyPath,
    data: AnyPath,
    out: AnyPath,
    *,
    split: str = "test",
    threads: int = 1,
    procs: int = 1,
    engine: str = "auto",
    progress: Progress = QUIET,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Score a split of session tables into Parquet files in `out`; how much there was, and how fast.

    With several `procs` a script is guarded by `if __name__ == "__main__":`, as multiprocessing asks for.
    """
    from serving import batch
    from serving.scored_parts import ScoringWorkers

    workers = ScoringWorkers(threads, procs, engine)
    return batch.score(
        Path(bundle), Path(data), Path(out), split=split, workers=workers, progress=progress, overwrite=overwrite
    )


def score_requests(
    bundle: AnyPath,
    files: Sequence[AnyPath],
    out: AnyPath,
    *,
    threads: int = 1,
    procs: int = 1,
    engine: str = "auto",
    bad_rows: float = 0.0,
    progress: Progress = QUIET,
    overwrite: Overwrite = "never",
) -> dict[str, Any]:
    """Score files of requests into Parquet files in `out`; at most the share `bad_rows` may be put aside unscored."""
    from serving.request_files import score as requests
    from serving.scored_parts import ScoringWorkers

    return requests.score(
        Path(bundle),
        [Path(file) for file in files],
        Path(out),
        workers=ScoringWorkers(threads, procs, engine),
        bad_rows=bad_rows,
        progress=progress,
        overwrite=overwrite,
    )


def ranker(bundle: Bundle, *, threads: int = 1) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function from a request to its ranked answer, the one the endpoint would give (docs/request.md).

    >>> ranker(bundle)({"context": {"user_id": 7}, "candidates": [{"item_id": 1}, {"item_id": 2}]})["candidates"]
    [{"item_id": 2, "score": 0.3, ...}, {"item_id": 1, ...}]
    """
    from serving.online.rank import RankService
    from serving.scorer import Scorer

    service = RankService(bundle, Scorer(bundle, threads=threads), new_id=lambda: uuid.uuid4().hex)

    def rank(request: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(service.rank(json.dumps(request).encode(), time.time_ns() // 1000).body)

    return rank
