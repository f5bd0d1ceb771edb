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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from rec import atomic
from rec.data import arrow_file
from rec.data import preprocessor as preprocessors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import schema
from rec.data.splits import SPLITS
from rec.errors import BundleError, DataError, SpecError, nearest
from rec.spec import BUNDLE_NAME, Spec, parse, tasks
from serving import store
from serving.graph import check as graph_check
from serving.store import EntityStore

FORMAT = 3
MODEL = "model.onnx"
REQUIRED = (MODEL, "spec.toml", "golden/requests.arrow", "golden/scores.arrow")


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
    graph_check.check(bundle.model, manifest["files"], spec)
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
