"""Warm start: a new model begins with the weights of a trained run, wherever the shapes of the two agree.

    tables       row by row (rec/training/row_map.py): ids that both know are copied, others are freshly drawn
    biases       likewise, by id: they have a weight per value, and stand among the dense ones
    dense        every weight whose name and shape are the same
    statistics   scales of numbers, edges of buckets, base rates and label bins are those of the new session tables
    optimizers   of what is copied: the tables' and AdamW's states, from the run's newest checkpoint

Weights are those of the run's best validation. Schedules, epochs and the order of batches begin anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rec import baselines, world
from rec import spec as specs
from rec.atomic import read_json, sha256
from rec.data import preprocessor
from rec.errors import BundleError
from rec.spec import Spec
from rec.spec.features import is_bias
from rec.training import bias_rows, checkpoint, row_map, saved_rows, tensor_folder
from rec.training.bias_rows import BiasRows
from rec.training.row_map import Fitted
from rec.training.saved_rows import Saved
from rec.training.state import Run
from rec.training.step import Fit

# buffers that are fitted on session tables; all others are learnt
_OF_DATA = re.compile(r"(embedding|bias)\.numbers\.|regression\.|objective\.(heads\.)?prior$")


@dataclass(frozen=True)
class Source:
    """A trained run to start from: its best weights, and its newest checkpoint, which has the optimizers' states."""

    path: Path
    fitted: Fitted
    best: Path
    last: Path | None
    weights: dict[str, Any] = field(repr=False)  # tensor_folder.index of `best`
    states: dict[str, Any] = field(repr=False)  # and of `last`

    def saved(self, name: str) -> Saved:
        """A table, or a state of its optimizer."""
        if name in self.weights:
            return Saved(self.best, name, self.weights[name])
        assert self.last is not None, "a state is of a checkpoint"
        return Saved(self.last, name, self.states[name])


def digest(path: Path) -> str:
    """What tells what a run would give to start from; BundleError where it is no trained network."""
    _refuse_bundle(path)
    best = checkpoint.kept(path)
    if not best.exists():
        raise BundleError(f"{path}: no trained model here (checkpoint/best); --from takes what `multigate train` wrote")
    described = specs.load(path / "spec.toml")
    if baselines.named(described):
        name = described.model["name"]
        raise BundleError(f"{path}: expected a network to start from, got a {name!r}, which has no weights to copy")
    folders = [best, *checkpoint.steps(checkpoint.trained_in(path))[-1:]]
    return "-".join(sha256(file)[:16] for file in (path / "manifest.json", *(f / "manifest.json" for f in folders)))


def opened(path: Path) -> Source:
    """A trained run whose files are whole; all ranks call together. Raises BundleError where one was changed."""
    best, of = checkpoint.kept(path), checkpoint.trained_in(path)
    last = next(iter(checkpoint.steps(of)[-1:]), None)
    _verified([best, *([] if last is None else [last])])
    spec = specs.load(path / "spec.toml")
    fitted = Fitted(spec, preprocessor.load(spec, of / "fitted"))
    states = {} if last is None else tensor_folder.index(last)
    return Source(path, fitted, best, last, tensor_folder.index(best), states)


def fill(run: Run, source: Source) -> dict[str, Any]:
    """Copy into a fresh model what a trained run has of it; what was copied, what is fresh and what is left out."""
    of = {
        "path": str(source.path),
        "name": source.fitted.spec.name,
        "step": read_json(source.best / "state.json")["step"],
        "optimizer_step": None if source.last is None else read_json(source.last / "state.json")["step"],
    }
    tables = _tables(run, source)
    biases = bias_rows.of(run, source.fitted, source.weights)
    dense = _dense(run.fit, source, biases)
    inputs = _other_inputs(run.spec, source.fitted.spec)
    of_biases = {bias.feature: bias.report() for bias in biases.values()}
    return {"from": of, "tables": tables, "biases": of_biases, "dense": dense, "inputs": inputs}


def _tables(run: Run, source: Source) -> dict[str, Any]:
    """Every table: its rows copied, new and gone, and the optimizer states that came along; or why it is fresh."""
    here, there = Fitted(run.spec, run.learnt), source.fitted
    stored = run.fit.ranker.stored_tables()
    report: dict[str, Any] = {}
    for name, (rows, width) in stored.shapes().items():
        entry = source.weights.get(f"tables.{name}")
        why = row_map.difference(name, here, there)
        if not why and entry is not None and entry["size"][1] != width:
            why = f"width {width}, {entry['size'][1]} there"
        if why or entry is None:
            report[name] = {"rows": rows, "fresh": why or "no such table there"}
            continue
        common = row_map.overlap(name, here, there, (rows, entry["size"][0]))
        by = row_map.by(name, here)
        report[name] = {"rows": rows, "by": by, **vars(common), "states": _states(name, width, run.spec, source)}
    for part in stored.parts():
        if "fresh" in report[part.table]:
            continue
        from_R = row_map.rows(part.table, here, there, part.row, part.row + len(part.weight))
        columns = (part.column, part.column + part.weight.shape[1])
        saved_rows.copy(source.saved(f"tables.{part.table}"), from_R, part.weight, columns=columns)
        for state in set(report[part.table]["states"]) & set(part.states):
            saved = source.saved(f"table_states.{part.table}.{state}")
            saved_rows.copy(saved, from_R, part.states[state], columns=columns)
    of_table = {name for name, feature in there.spec.tables().items() if not is_bias(feature)}
    gone = sorted(of_table - set(report))
    return report | {name: {"rows": 0, "left_out": "no such table here"} for name in gone}


def _states(table: str, width: int, spec: Spec, source: Source) -> list[str]:
    """The optimizer states of a table that a run has, of the same optimizer and width."""
    if spec.train.table_optimizer != source.fitted.spec.train.table_optimizer:
        return []
    prefix = f"table_states.{table}."
    sizes = {name.removeprefix(prefix): x["size"] for name, x in source.states.items() if name.startswith(prefix)}
    rows = source.weights[f"tables.{table}"]["size"][0]
    return sorted(name for name, size in sizes.items() if size in ([rows], [rows, width]))


@torch.no_grad()
def _dense(fit: Fit, source: Source, biases: Mapping[str, BiasRows]) -> dict[str, Any]:
    """Every weight outside the tables: copied, fresh and why, left out, or fitted on the new session tables."""
    live, learnt = fit.ranker.dense_state(), fit.ranker.dense()
    report: dict[str, Any] = {"copied": [], "numbers": 0, "fresh": {}, "left_out": [], "of_data": []}
    for name, tensor in live.items():
        entry = source.weights.get(f"dense.{name}")
        if name not in learnt and _OF_DATA.match(name):
            report["of_data"].append(name)
        elif entry is None:
            report["fresh"][name] = "not there"
        elif name in biases and not biases[name].fresh:
            report["copied"].append(name)
            report["numbers"] += biases[name].copied * tensor.shape[1]
        elif name in biases:
            report["fresh"][name] = biases[name].fresh
        elif entry["size"] != list(tensor.shape):
            report["fresh"][name] = f"{list(tensor.shape)}, {entry['size']} there"
        else:
            report["copied"].append(name)
            report["numbers"] += tensor.numel()
    report["left_out"] = sorted(
        name.removeprefix("dense.")
        for name in source.weights
        if name.startswith("dense.") and name.removeprefix("dense.") not in live
    )
    for name, saved in tensor_folder.tensors(source.best, [f"dense.{name}" for name in report["copied"]]):
        _put(live[name.removeprefix("dense.")], saved, biases.get(name.removeprefix("dense.")))
    for name, average in fit.averages.items():
        average.copy_(learnt[name].detach())
    report["moments"] = _moments(fit, source, [name for name in report["copied"] if name in learnt], biases)
    return report


def _put(live: Tensor, saved: Tensor, bias: BiasRows | None) -> None:
    """A saved weight, or a moment of it, in its place: that of a bias row by row."""
    if bias is None or not live.dim():
        live.copy_(saved)
    else:
        bias.put(live, saved)


def _moments(fit: Fit, source: Source, copied: list[str], biases: Mapping[str, BiasRows]) -> int:
    """Copy AdamW's states of copied weights; of how many there were some."""
    if source.last is None:
        return 0
    known = [name for name in copied if f"adamw.step.{name}" in source.states]
    saved = [f"adamw.{key}.{name}" for name in known for key in ("step", "exp_avg", "exp_avg_sq")]
    checkpoint.prepare(fit.ranker, fit.optimizer, saved)
    live = checkpoint.whole(fit.ranker, fit.optimizer, {})
    with torch.no_grad():
        for name, value in tensor_folder.tensors(source.last, saved):
            _put(live[name], value, biases.get(name.split(".", 2)[2]))
    return len(known)


def _other_inputs(here: Spec, there: Spec) -> list[str]:
    """Sides whose features are others, or in another order: where shapes agree all the same, columns mean others."""
    pairs = zip(here.sides(), there.sides(), strict=True)
    return [side for (side, mine), (_, theirs) in pairs if list(mine) != list(theirs)]


def _refuse_bundle(path: Path) -> None:
    if (path / "model.onnx").is_file():
        of = read_json(path / "manifest.json").get("run", {}).get("weights_sha256", "")[:16]
        raise BundleError(
            f"{path}: a bundle's graph has some weights folded into others, so it cannot be trained further; "
            f"give the trained model it was exported from (sha256 of checkpoint/best/manifest.json: {of}...)"
        )


def _verified(folders: list[Path]) -> None:
    """Rank 0 reads every file of the folders once; on the others OtherRankError where one is broken."""
    problem = None
    if world.rank() == 0:
        try:
            for folder in folders:
                tensor_folder.state(folder)
        except BundleError as error:
            problem = error
    whole = world.agreed(problem is None)
    if problem is not None:
        raise problem
    if not whole:
        raise world.OtherRankError("rank 0 cannot read the run to start from")
