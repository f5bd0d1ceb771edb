"""An epoch of training: batches, steps, and the validations and checkpoints on the way.

A refit (rec/training/refit.py) trains by the same epochs, on validation too, and is not evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from rec import world
from rec.atomic import write_json
from rec.data import loader
from rec.data.loader import Share, TrainingBatch
from rec.data.prefetch import ahead
from rec.errors import DataError
from rec.evaluation import remarks
from rec.request import RequestBatch
from rec.spec import Spec
from rec.training import checkpoint, monitor, progressive, state, weight_average
from rec.training.averages import averaged_weights
from rec.training.checkpoint import Saver
from rec.training.failed_batch import saved_where_not_finite
from rec.training.finite import numbers, refuse_nan
from rec.training.state import Run
from rec.training.step import seed_step
from rec.training.validation import validate
from rec.training.watch import WatchedSteps

if TYPE_CHECKING:
    from rec.training.id_exchange import IdExchange

AHEAD = 4  # batches that are read, encoded and copied to the device before their step
_LOOK = 10  # steps between looks at the loss or the clock, which make a device, or the other ranks, wait


def train_epoch(run: Run, saver: Saver, watch: WatchedSteps, *, stop: int | None = None) -> None:
    """Run the rest of an epoch, or of its first `stop` batches, with the validations and checkpoints on the way."""
    spec, fit = run.spec, run.fit
    if run.day is not None and not run.batch:
        progressive.before(run, run.day)
    started, saved = time.perf_counter() - run.seconds, time.monotonic()
    figures: dict[str, float] = {}
    run.progress.start(_title(run), run.requests, "requests")
    fit.ranker.train()
    for part, batch, sent in _sent_ahead(run, watch.waited(_batches(run, stop))):
        seed_step(spec, fit.steps)
        with saved_where_not_finite(run, batch):
            losses = watch.step(run, batch, part.candidates, sent=sent)
            run.add(losses, part.candidates)
            if fit.device.type == "cpu" or run.batch % _LOOK == 1:
                figures = {"candidates/s": run.candidates / (time.perf_counter() - started), **numbers(losses)}
        run.progress.advance(part.requests, **figures)
        if run.batch == stop:
            continue  # what follows the last batch is below
        if run.held_out and spec.train.validate_every and fit.steps % spec.train.validate_every == 0:
            _validated(run, saver, started)
            watch.validation(run.history[-1])
        if _due(spec, fit.steps, saved):
            state.save(run, saver, time.perf_counter() - started)
            saved = time.monotonic()
    if not run.candidates:
        raise DataError(f"{run.data / 'train'}: there is not one candidate to learn from")
    _ended(run, saver, watch, started)
    if stop is None:
        run.next_epoch()
    state.save(run, saver, 0.0)


def _ended(run: Run, saver: Saver, watch: WatchedSteps, started: float) -> None:
    """What follows the last step of an epoch, or of a day."""
    if not run.held_out:
        losses = run.losses()
        refuse_nan(losses, run.epoch, run.fit.steps)
        with averaged_weights(run.fit):
            weight_average.save(run, saver)
        run.progress.say(f"{_title(run)}: {time.perf_counter() - started:.1f} s, loss {_losses(losses)}")
        return
    if run.day is not None:
        progressive.after(run)
    if run.epoch >= len(run.days) and (not run.history or run.history[-1]["step"] != run.fit.steps):
        _validated(run, saver, started)
        watch.validation(run.history[-1])


def _title(run: Run) -> str:
    name = run.day.date if run.day else f"epoch {run.epoch}"
    return name if run.held_out else f"refit, {name}"


def _batches(run: Run, stop: int | None) -> Iterator[tuple[TrainingBatch, RequestBatch]]:
    """The remaining batches of an epoch, or of its first `stop`, and this rank's part of each on the device."""
    if stop is not None and run.batch >= stop:
        return iter(())
    share = Share(world.rank(), world.size())
    encoders = run.learnt.encoders
    parts = loader.shuffled(
        run.data, run.spec, encoders, epoch=run.epoch, share=share, skip=run.batch, day=run.day, splits_of=run.splits
    )
    few = islice(parts, None if stop is None else stop - run.batch)
    return ahead(((part, loader.tensors(part.mine, run.fit.device)) for part in few), AHEAD)


def _sent_ahead(
    run: Run, batches: Iterator[tuple[TrainingBatch, RequestBatch]]
) -> Iterator[tuple[TrainingBatch, RequestBatch, IdExchange | None]]:
    """The same, and their ids, which several processes send to the ranks that hold their rows some batches ahead."""
    if world.size() == 1:
        yield from ((part, batch, None) for part, batch in batches)
        return
    from rec.training import id_exchange  # TorchRec's sharding takes seconds to import
    from rec.training.sharding import ShardedTables

    embedding = run.fit.ranker.embedding
    tables = embedding.tables
    assert isinstance(tables, ShardedTables)
    sent = id_exchange.ahead(((part, batch), tables.send(embedding.ids(batch))) for part, batch in batches)
    yield from ((part, batch, ids) for (part, batch), ids in sent)


def _validated(run: Run, saver: Saver, started: float) -> None:
    """Evaluate, and keep the weights where they are the best so far; nothing is kept where a figure is no number."""
    losses = run.losses()
    refuse_nan(losses, run.epoch, run.fit.steps)
    with averaged_weights(run.fit), weight_average.mean_after(run, saver):
        figures = validate(run)
        entry = {"epoch": run.epoch, "step": run.fit.steps, "seconds": time.perf_counter() - started}
        run.history.append({**entry, "train": {"loss": losses}, "validation": figures})
        if monitor.best(run.history, run.spec) == len(run.history) - 1:
            about = {"epoch": run.epoch, "step": run.fit.steps}
            saver.save_best(checkpoint.weights(run.fit.ranker), about)
    if world.rank() == 0:
        write_json(run.folder / "history.json", run.history)
    run.progress.say(_line(run.history[-1], run.spec))
    run.fit.ranker.train()


def _due(spec: Spec, steps: int, saved: float) -> bool:
    """Whether a checkpoint is due; by the clock of rank 0."""
    when = spec.train.checkpoint
    if when.steps is not None and steps % when.steps == 0:
        return True
    if when.minutes is None or steps % _LOOK:
        return False
    return world.agreed(time.monotonic() - saved > 60 * when.minutes)


def _line(entry: Mapping[str, Any], spec: Spec) -> str:
    """A validation in a line, and one more for every remark on its figures."""
    ordered = {name: monitor.figure(figures, "auc") for name, figures in entry["validation"].items()}
    auc = [f"{name} {figure:.4f}" for name, figure in ordered.items() if figure is not None]
    tail = f"; validation AUC {', '.join(auc)}" if auc else ""
    line = f"epoch {entry['epoch']}: {entry['seconds']:.1f} s, loss {_losses(entry['train']['loss'])}{tail}"
    after = [remark.brief for remark in remarks.of_outputs(entry["validation"])] + monitor.remarks(entry, spec)
    return "\n".join([line, *(f"  {remark}" for remark in after)])


def _losses(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
