"""Training: one process, on a CPU or one CUDA device, by the same spec and the same command.

One step: batch -> tables and numbers -> expert model -> logits -> chain -> losses -> backward (tables update inside
it) -> AdamW for the rest. After each epoch the validation split is evaluated, the state is saved, and the best epoch is
kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec import ranker
from rec.atomic import read_json, write_bytes, write_json
from rec.data import preprocessor, splits
from rec.data.loader import edges, shuffled, tensors
from rec.data.preprocessor import Preprocessor
from rec.errors import BundleError, DataError, SpecError
from rec.evaluation import regression, remarks
from rec.evaluation.evaluate import Score, evaluate
from rec.losses import task_losses
from rec.memory import keep_large_blocks
from rec.output_folder import Origin, Overwrite, digest, opened
from rec.progress import Progress
from rec.ranker import Ranker
from rec.request import RequestBatch
from rec.spec import Spec, Train, dump, load, sections
from rec.spec.tasks import given
from rec.training import checkpoint

VERSION = 1  # of the weights that training leads to: counts up when the same spec and tables give others
ENTRIES = ("spec.toml", "fitted", "manifest.json", "checkpoint", "history.json", "report.json", "report.html")


@dataclass
class Fit:
    """A training run in flight."""

    ranker: Ranker
    optimizer: torch.optim.Optimizer
    device: torch.device
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(spec: Spec, data: Path, run: Path, *, progress: Progress, overwrite: Overwrite = "never") -> dict[str, Any]:
    """Train on DATA/train, evaluate on DATA/validation, leave everything in MODEL; the summary of the best epoch.

    Interrupted, the same call goes on from the last whole epoch to the same numbers as an unbroken run. Raises
    FileExistsError when MODEL holds anything else (rec/output_folder.py), DataError when there is nothing to train on.
    """
    _same_tables(spec, data)
    learnt = preprocessor.load(spec, data / "fitted")
    fit = new_fit(spec, learnt)
    with opened(run, origin(spec, data), overwrite=overwrite, progress=progress) as state:
        _describe(spec, learnt, data, run)
        if state == "finished":
            fit.history = read_json(run / "history.json")
        else:
            _restore(fit, run / "checkpoint" / "last")
            _epochs(fit, (spec, learnt), data, run, progress)
    return fit.history[_best(fit.history, spec.train)]


def origin(spec: Spec, data: Path) -> Origin:
    """What a run is made of, and what lies in its folder."""
    parts = {place: digest(part) for place, part in sections.of_model(spec).items()}
    made_of = {"session tables": splits.digest(data)[:16], **parts, "training version": VERSION}
    return Origin("train", spec.name, made_of, ENTRIES, (data,))


def _epochs(fit: Fit, about: tuple[Spec, Preprocessor], data: Path, run: Path, progress: Progress) -> None:
    """All epochs that are left."""
    spec, learnt = about
    progress.say(f"{_count(fit.ranker)} on {fit.device}")
    while fit.epoch < spec.train.epochs and not _stalled(fit.history, spec.train):
        fit.epoch += 1
        started = time.perf_counter()
        loss = _epoch(fit, spec, learnt, data, progress)
        validation = _validate(fit, spec, learnt, data, progress)
        seconds = time.perf_counter() - started
        fit.history.append({"epoch": fit.epoch, "seconds": seconds, "train": {"loss": loss}, "validation": validation})
        _keep(fit, spec, run)
        progress.say(_line(fit.history[-1]))


def device_of(train: Train) -> torch.device:
    """The device `train.device` names; `auto` is CUDA where there is one."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "train.device: 'cuda' was asked for, but torch sees no CUDA device; `multigate doctor` says why"
        )
    return torch.device("cuda" if train.device != "cpu" and torch.cuda.is_available() else "cpu")


def scorer(
    model: Ranker, parents: Mapping[str, str | None], device: torch.device, *, candidates: int = 16_384
) -> Score:
    """A function from a numpy batch to {output: probability or value [N]}, in parts of about `candidates`."""

    def score(batch: RequestBatch) -> dict[str, np.ndarray]:
        values: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for part in batch.cut(edges(batch, candidates)):
                for name, value in model.served(tensors(part, device), parents).items():
                    values.setdefault(name, []).append(value)
        return {name: torch.cat(parts).cpu().numpy() for name, parts in values.items()}

    return score


def step(fit: Fit, spec: Spec, batch: RequestBatch) -> dict[str, Tensor]:
    """One update; the loss of each task before it."""
    losses = fit.ranker.losses(batch)
    fit.optimizer.zero_grad(set_to_none=True)
    task_losses.total(losses, spec.tasks).backward()
    fit.optimizer.step()
    return losses


def new_fit(spec: Spec, learnt: Preprocessor) -> Fit:
    """A model with fresh weights and its optimizer."""
    device = device_of(spec.train)
    keep_large_blocks()
    model = ranker.create(spec, learnt, seed=spec.seed, device=device)
    optimizer = torch.optim.AdamW(model.dense().values(), lr=spec.train.lr, weight_decay=spec.train.weight_decay)
    return Fit(model, optimizer, device)


def _same_tables(spec: Spec, data: Path) -> None:
    """Refuse data whose spec says otherwise how a column of the tables is made; widths and weights may differ."""
    path = data / "spec.toml"
    if not path.exists():
        raise DataError(f"{data}: no session tables here; `multigate features SPEC --out {data}` makes them")
    before, wanted = sections.of_tables(load(path)), sections.of_tables(spec)
    for where in sorted(set(before) | set(wanted)):
        if before.get(where) != wanted.get(where):
            raise DataError(f"{data}: was made with another {where}; make it again with `multigate features --force`")


def _describe(spec: Spec, learnt: Preprocessor, data: Path, run: Path) -> None:
    """What a run says of itself; a spec that differs only in what a model does not depend on replaces the former."""
    text = dump(spec).encode()
    if not (run / "spec.toml").exists() or (run / "spec.toml").read_bytes() != text:
        write_bytes(run / "spec.toml", text)
    if not (run / "manifest.json").exists():
        learnt.save(run / "fitted")
        about = {"format": 1, "kind": "run", "name": spec.name, "data": splits.digest(data)}
        write_json(run / "manifest.json", about)


def _restore(fit: Fit, last: Path) -> None:
    """Put the last whole epoch back, where there is one."""
    if last.exists():
        saved = checkpoint.state(last)
        fit.epoch, fit.history = saved["epoch"], saved["history"]
        checkpoint.load_weights(fit.ranker, checkpoint.tensors(last, "weights"))
        checkpoint.load_optimizer(fit.ranker, fit.optimizer, checkpoint.tensors(last, "optimizer"))


def _epoch(fit: Fit, spec: Spec, learnt: Preprocessor, data: Path, progress: Progress) -> dict[str, float]:
    """One pass over the training split; the mean over candidates of every loss."""
    # dropout's randomness depends on the epoch only, so that a resumed run repeats it
    torch.manual_seed(spec.seed * 1_000_003 + fit.epoch)
    fit.ranker.train()
    sums: dict[str, Tensor] = {}
    steps, begun, candidates = 0, time.perf_counter(), 0
    figures: dict[str, float] = {}
    progress.start(f"epoch {fit.epoch}", splits.count(data, "train"), "requests")
    for batch in shuffled(data, spec, learnt.encoders, epoch=fit.epoch):
        losses = step(fit, spec, tensors(batch, fit.device))
        steps += 1
        candidates += len(batch)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() * len(batch)
        if steps % 10 == 1:
            shown = {name: float(loss.detach()) for name, loss in losses.items()}
            _refuse_nan(shown, fit.epoch, steps)
            figures = {"candidates/s": candidates / (time.perf_counter() - begun), **shown}
        progress.advance(batch.size, **figures)
    if not steps:
        raise DataError(f"{data / 'train'}: there is not one candidate to learn from")
    mean = {name: float(total) / candidates for name, total in sums.items()}
    _refuse_nan(mean, fit.epoch, steps)
    return mean


def _refuse_nan(losses: Mapping[str, float], epoch: int, step: int) -> None:
    for name, loss in losses.items():
        if not np.isfinite(loss):
            raise BundleError(
                f"epoch {epoch}, step {step}: the loss of {name} is {loss}; try a lower train.lr or table_lr"
            )


def _validate(fit: Fit, spec: Spec, learnt: Preprocessor, data: Path, progress: Progress) -> dict[str, Any]:
    """Metrics of every output on the validation split; empty when there is no such split."""
    fit.ranker.eval()
    if not splits.count(data, "validation"):
        return {}
    progress.start("validation", splits.count(data, "validation"), "requests")
    rows = splits.read(data, "validation", spec)
    score = scorer(fit.ranker, given(spec.tasks), fit.device)
    outputs: Any = evaluate(spec, rows, learnt.encoders, score, progress=progress)["outputs"]
    kept_apart = ("reliability", "remarks")  # history.json holds numbers
    return {name: {k: v for k, v in figures.items() if k not in kept_apart} for name, figures in outputs.items()}


def _monitored(entry: Mapping[str, Any], train: Train) -> float:
    """What early stopping compares, higher better: the mean over outputs that have it; epochs count where none has.

    For a regression task it is the corresponding metric: normalised error for entropy, concordance for AUC.
    """
    values = [_either(figures, train.monitor) for figures in entry["validation"].values()]
    values = [figure for figure in values if figure is not None]
    if not values:
        return float(entry["epoch"])
    return float(np.mean(values)) * (-1 if train.monitor == "normalised_entropy" else 1)


def _either(figures: Mapping[str, Any], name: str) -> float | None:
    return figures[name] if name in figures else figures[regression.COUNTERPARTS[name]]


def _best(history: list[dict[str, Any]], train: Train) -> int:
    return int(np.argmax([_monitored(entry, train) for entry in history]))


def _stalled(history: list[dict[str, Any]], train: Train) -> bool:
    return bool(history) and len(history) - 1 - _best(history, train) >= train.patience


def _keep(fit: Fit, spec: Spec, run: Path) -> None:
    """Save the state after an epoch, and the weights once more when it is the best so far."""
    weights = ranker.weights_of(fit.ranker)
    if _best(fit.history, spec.train) == len(fit.history) - 1:
        checkpoint.save(run / "checkpoint" / "best", {"epoch": fit.epoch}, {"weights": weights})
    state = {"epoch": fit.epoch, "history": fit.history}
    saved = {"weights": weights, "optimizer": checkpoint.optimizer_tensors(fit.ranker, fit.optimizer)}
    checkpoint.save(run / "checkpoint" / "last", state, saved)
    write_json(run / "history.json", fit.history)


def _count(model: Ranker) -> str:
    dense = sum(p.numel() for p in model.dense().values())
    rows = sum(weight.numel() for weight in model.tables().values())
    return f"{dense:,} dense weights, {rows:,} in {len(model.tables())} tables"


def _line(entry: Mapping[str, Any]) -> str:
    """An epoch in a line, and one more for every remark on its validation figures."""
    ordered = {name: _either(figures, "auc") for name, figures in entry["validation"].items()}
    auc = [f"{name} {figure:.4f}" for name, figure in ordered.items() if figure is not None]
    loss = [f"{name} {value:.4f}" for name, value in entry["train"]["loss"].items()]
    tail = f"; validation AUC {', '.join(auc)}" if auc else ""
    line = f"epoch {entry['epoch']}: {entry['seconds']:.1f} s, loss {', '.join(loss)}{tail}"
    return "\n".join([line, *(f"  {remark.brief}" for remark in remarks.of_outputs(entry["validation"]))])
