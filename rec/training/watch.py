"""Looks at training: once in so many steps where its time goes, what it predicts, and what it holds.

    loss/TASK                                    of the step, over all ranks
    auc/TASK, normalised_entropy/TASK            of the last candidates, predicted before they were learnt from
    seconds/step, and of it: seconds/data        waiting for a batch, by the clock of the process
                             seconds/tables      looking rows up; in several processes also sending them
                             seconds/forward     the network and its losses
                             seconds/backward    of both, and the update of tables, which is fused into it
                             seconds/communication   averaging dense gradients over ranks
                             seconds/optimizer   the update of everything but tables
    effective_sample/TASK                        candidates of equal weight that the weighted ones of a child are worth
    gradient_norm                                of the dense weights, before it is clipped
    candidates/s                                 since the look before, without validation
    memory/rss, memory/cuda, memory/cuda_peak    bytes that rank 0 holds, and held at most since the look before

Times and memory are those of rank 0. Other steps run as if nobody watched, but for those inside a window of predictions
(rec/training/window.py).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rec import world
from rec.request import RequestBatch
from rec.training import step as steps
from rec.training.profile import Profile
from rec.training.state import Run
from rec.training.step_clock import PHASES, StepClock
from rec.training.watchers import Watchers, create
from rec.training.window import Window

if TYPE_CHECKING:
    from rec.training.id_exchange import IdExchange  # TorchRec's sharding takes seconds to import

T = TypeVar("T")
_STATM = Path("/proc/self/statm")


class WatchedSteps:
    """The steps of a run, some of which are looked at; all ranks make one, and rank 0 tells the watchers."""

    def __init__(self, run: Run, profile: Profile | None) -> None:
        watch = run.spec.train.watch
        self.every, self.profile = watch.every, profile
        self._steps_in_window = math.ceil(watch.window / run.spec.train.batch)
        self._window = Window(run.spec.tasks)
        mine = create(run.spec, run.folder, step=run.fit.steps) if watch.every and world.rank() == 0 else []
        self._watchers = Watchers(mine, run.progress.say)
        self._say = run.progress.say
        self._waited, self._candidates, self._began = 0.0, 0, time.perf_counter()
        self._figures: dict[str, float] = {}  # of the step that is looked at

    def waited(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; how long each was waited for is remembered."""
        source = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            self._waited = time.perf_counter() - began
            yield item

    def step(
        self, run: Run, batch: RequestBatch, candidates: int, *, sent: IdExchange | None = None
    ) -> dict[str, Tensor]:
        """One step of training, of a whole batch of so many candidates; its losses; `sent` as in a step."""
        fit, step = run.fit, partial(steps.step, run.fit, run.spec, batch, sent=sent)
        self._candidates += candidates
        until = -(fit.steps + 1) % self.every if self.every else math.inf  # the next look
        if until >= max(self._steps_in_window, 1):
            losses = step()
        elif until or world.rank():
            with self._window.seen(fit.ranker.objective, _untimed, steps.unmarked):
                losses = step()
        else:
            losses, self._figures = self._looked_at(run, step)
        if until == 0:
            self._tell(run, losses)
        if self.profile is not None:
            self.profile.step()
        return losses

    def validation(self, entry: Mapping[str, Any]) -> None:
        """Tell of a validation, an entry of history.json; its time is no part of candidates/s."""
        figures = {
            f"{metric}/{output}": float(value)
            for output, metrics in entry["validation"].items()
            for metric, value in metrics.items()
            if isinstance(value, int | float)
        }
        figures |= {f"train_loss/{name}": value for name, value in entry["train"]["loss"].items()}
        self._watchers.validation(entry["step"], _finite(figures))
        self._candidates, self._began = 0, time.perf_counter()

    def close(self) -> None:
        """Training is over, by its end or by an error."""
        self._watchers.close()
        if self.profile is not None:
            self._say(self.profile.close())

    def _looked_at(
        self, run: Run, step: Callable[..., dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The losses of a step, and what its time went to."""
        fit = run.fit
        clock, norm = StepClock(fit.device), []

        def mark(phase: str) -> None:
            clock.mark(phase)
            if phase == "communication":  # gradients are those of the whole batch, and not clipped yet
                norm.append(_norm(fit.ranker.dense()))
                clock.skip()

        tables = fit.ranker.embedding.tables
        with _lookups(tables, mark), self._window.seen(fit.ranker.objective, clock.skip, mark):
            losses = step(mark=mark)
        seconds = {"data": self._waited, **clock.seconds()}
        shown = [phase for phase in PHASES if phase != "communication" or world.size() > 1]
        seconds = {phase: seconds.get(phase, 0.0) for phase in shown}
        figures = {f"seconds/{name}": value for name, value in {"step": sum(seconds.values()), **seconds}.items()}
        return losses, {**figures, "gradient_norm": float(norm[0])}

    def _tell(self, run: Run, losses: Mapping[str, Tensor]) -> None:
        """What a look saw; all ranks call together."""
        mean = {name: float(world.total(loss.detach())) / world.size() for name, loss in losses.items()}
        weights = {name: world.total(sums) for name, sums in getattr(run.fit.ranker.objective, "weights", {}).items()}
        metrics = self._window.figures()
        if world.rank() == 0:
            figures = {f"loss/{name}": value for name, value in mean.items()}
            for metric, of in metrics.items():
                figures |= {f"{metric}/{name}": value for name, value in of.items() if value is not None}
            sizes = {name: (float(w), float(squares)) for name, (w, squares) in weights.items()}
            figures |= {f"effective_sample/{name}": w**2 / s if s else 0.0 for name, (w, s) in sizes.items()}
            figures |= self._figures
            figures["candidates/s"] = self._candidates / max(time.perf_counter() - self._began, 1e-9)
            self._watchers.step(run.fit.steps, _finite(figures | _memory(run.fit.device)))
        self._candidates, self._began = 0, time.perf_counter()


@contextmanager
def _lookups(tables: nn.Module, mark: Any) -> Iterator[None]:
    """Inside the block the time of looking rows up is marked apart from what is around it."""
    before = tables.register_forward_pre_hook(lambda *_: mark("forward"))
    after = tables.register_forward_hook(lambda *_: mark("tables"))
    try:
        yield
    finally:
        before.remove()
        after.remove()


@torch.no_grad()
def _norm(weights: Mapping[str, nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in weights.values() if p.grad is not None])


def _memory(device: torch.device) -> dict[str, float]:
    """Bytes that this process holds."""
    out: dict[str, float] = {}
    if sys.platform == "linux":
        out["memory/rss"] = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cuda":
        out["memory/cuda"] = torch.cuda.memory_allocated(device)
        out["memory/cuda_peak"] = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    return out


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """A figure that is no number is left out: who reads them would stumble over it."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _untimed() -> None:
    """Nobody measures time."""
