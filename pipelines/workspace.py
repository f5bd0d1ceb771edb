"""`multigate run`: every step in order into one folder, skipping what is fresh.

    OUT/
        data/  model/  bundle/  scores/      what each step makes
        report.json  report.html             how good the model is
        steps.json                           the digest of what each step was made from

A step is fresh when its result is there and was made from the same part of the spec, the same input and the same source
code. A step that was interrupted goes on where it stopped, where it can.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rec
from pipelines import steps
from rec import spec as specs
from rec.files import read_json, write_json
from rec.progress import Progress
from rec.spec import Spec

HOUSE = Path(rec.__file__).parents[1]
LATER = frozenset({"model", "train", "evaluate", "serve"})  # parts of a spec that session tables do not depend on


@dataclass(frozen=True)
class Step:
    """One step: its result's name in the folder, the digest of what it is made from, and how it is made."""

    name: str
    digest: str
    make: Callable[[bool], object]  # called with whether to go on with what is there


def run(path: Path, overrides: Sequence[str], out: Path, progress: Progress) -> dict[str, Any]:
    """All steps of a spec into `out`; the report on the test split."""
    spec = specs.load(path, overrides)
    out.mkdir(parents=True, exist_ok=True)
    data, model, bundle, scores = (out / name for name in ("data", "model", "bundle", "scores"))
    made = _digests(spec, path.parent)
    chain = [
        Step("data", made["data"], lambda _: steps.features(path, overrides, data, progress)),
        Step(
            "model",
            made["model"],
            lambda resume: steps.train(path, overrides, data, model, resume=resume, progress=progress),
        ),
        Step("bundle", made["bundle"], lambda _: steps.export(model, data, bundle, progress)),
        Step(
            "scores",
            made["bundle"],
            lambda resume: steps.score(bundle, data, scores, split="test", threads=1, resume=resume, progress=progress),
        ),
        Step(
            "report.json",
            made["report"],
            lambda _: steps.evaluate(model, data, "test", out, progress, bundle=bundle),
        ),
    ]
    for step in chain:
        bring_up_to_date(out, step, progress)
    return read_json(out / "report.json")


def tables(path: Path, overrides: Sequence[str], data: Path, progress: Progress) -> None:
    """Only the session tables of a spec, in DATA, unless they are fresh."""
    spec = specs.load(path, overrides)
    data.parent.mkdir(parents=True, exist_ok=True)
    made = Step(
        data.name,
        _digests(spec, path.parent)["data"],
        lambda _: steps.features(path, overrides, data, progress),
    )
    bring_up_to_date(data.parent, made, progress)


def bring_up_to_date(out: Path, step: Step, progress: Progress) -> bool:
    """Make a step's result unless it is fresh; whether anything was made."""
    record = out / "steps.json"
    known = read_json(record) if record.exists() else {}
    before, where = known.get(step.name, {}), out / step.name
    same = before.get("digest") == step.digest
    if same and before.get("done") and where.exists():
        progress.say(f"{step.name}: fresh, kept")
        return False
    if not same and where.is_dir():
        shutil.rmtree(where)
    write_json(record, {**known, step.name: {"digest": step.digest, "done": False}})
    step.make(same and where.exists())
    write_json(record, {**known, step.name: {"digest": step.digest, "done": True}})
    return True


def _digests(spec: Spec, base: Path) -> dict[str, str]:
    """What each result is made from, each including what the one before it was made from."""
    whole = spec.model_dump(mode="json")
    tables = {name: part for name, part in whole.items() if name not in LATER}
    data = digest(tables, stamp(spec, base))
    model = digest(data, whole["model"], whole["train"], whole["evaluate"])
    bundle = digest(model, whole, _code("serving"))
    return {"data": data, "model": model, "bundle": bundle, "report": digest(bundle, _code("pipelines"))}


def stamp(spec: Spec, base: Path) -> str:
    """What session tables are made from besides the spec: the files it names, and our code."""
    return digest(list(_stamps([spec.source, spec.logs.columns], base)), _code("rec", "features"))


def digest(*parts: Any) -> str:
    """One digest of any JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamps(value: Any, base: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every file that [source] names, by path or by pattern."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _stamps(inner, base)
    elif isinstance(value, str):
        for file in sorted(_named(base / value)):
            status = file.stat()
            yield str(file), status.st_size, status.st_mtime_ns


def _named(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif any(sign in path.name for sign in "*?[") and path.parent.is_dir():
        yield from (file for file in path.parent.glob(path.name) if file.is_file())


def _code(*folders: str) -> str:
    """The digest of our own source: a result made by other code is not fresh."""
    files = sorted(file for folder in folders for file in (HOUSE / folder).rglob("*.py"))
    return digest([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
