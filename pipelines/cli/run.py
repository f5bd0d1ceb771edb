"""`multigate run`: every step in order into one folder, skipping what is fresh.

    OUT/
        data/  model/  bundle/  scores/      what each step makes
        report.json  report.html             how good the model is
        steps.json                           the digest of what each step was made from

A step is fresh when its result is there and was made from the same part of the spec, the same input and the same source
code. A step that was interrupted goes on where it stopped, where it can.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import validate
from pipelines.cli import commands
from pipelines.cli.fingerprint import code, digest, stamp
from rec import spec as specs
from rec.atomic import read_json, write_json
from rec.progress import Progress
from rec.spec import Spec

LATER = frozenset({"model", "train", "evaluate", "serve"})  # parts of a spec that session tables do not depend on


@dataclass(frozen=True)
class Step:
    """One step: its result's name in the folder, the digest of what it is made from, and how it is made."""

    name: str
    digest: str
    make: Callable[[bool], object]  # called with whether to go on with what is there


def run(path: Path, overrides: Sequence[str], out: Path, progress: Progress) -> dict[str, Any]:
    """All steps of a spec into `out`; the report on the test split."""
    spec = validate.load(path, overrides, trained_here=True)
    out.mkdir(parents=True, exist_ok=True)
    data, model, bundle, scores = (out / name for name in ("data", "model", "bundle", "scores"))
    made = _digests(spec, path.parent)
    chain = [
        Step("data", made["data"], lambda _: commands.features(path, overrides, data, progress)),
        Step(
            "model",
            made["model"],
            lambda resume: commands.train(path, overrides, data, model, resume=resume, progress=progress),
        ),
        Step("bundle", made["bundle"], lambda _: commands.export(model, data, bundle, progress)),
        Step(
            "scores",
            made["bundle"],
            lambda resume: commands.score(
                bundle, data, scores, split="test", threads=1, resume=resume, progress=progress
            ),
        ),
        Step(
            "report.json",
            made["report"],
            lambda _: commands.evaluate(model, data, "test", out, progress, bundle=bundle),
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
        lambda _: commands.features(path, overrides, data, progress),
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
    bundle = digest(model, whole, code("serving"))
    return {"data": data, "model": model, "bundle": bundle, "report": digest(bundle, code("pipelines"))}
