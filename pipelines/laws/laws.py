"""The laws of the model contract: each a function that raises Broken when a network breaks it.

They take a ranker, the whole network around a model and an objective, and a numpy batch. None depends on how a model
works: they apply to a file in rec/models and to a class of another package alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from rec.data.loader import tensors
from rec.losses import task_losses
from rec.modules.experts import ExpertNorm
from rec.ranker import Ranker
from rec.request import RequestBatch
from rec.spec import Spec
from rec.spec.tasks import conditional, events, given, regression_tasks
from rec.training.scorer import scorer

CPU = torch.device("cpu")
Arrays = Mapping[str, np.ndarray]


class Broken(AssertionError):  # noqa: N818  # it is what happened to a law
    """A broken law: what was expected, and what came."""


def logits(model: Ranker, batch: RequestBatch) -> dict[str, np.ndarray]:
    """{task: logit [N]} of a numpy batch, as numpy."""
    with torch.no_grad():
        return {name: value.numpy() for name, value in model(tensors(batch, CPU)).items()}


@contextmanager
def _rows_apart(model: Ranker) -> Iterator[None]:
    """Tables at the scale of trained ones: fresh rows, of .01, move a score by less than the tolerance of a law."""
    scale = 128.0  # a power of two: the rows come back to the bit
    _scale_tables(model, scale)
    try:
        yield
    finally:
        _scale_tables(model, 1 / scale)


@torch.no_grad()
def _scale_tables(model: Ranker, factor: float) -> None:
    for weight in model.tables().values():
        weight.mul_(factor)


def one_finite_logit_per_candidate_and_task(model: Ranker, spec: Spec, batch: RequestBatch) -> None:
    """Exactly the tasks of the spec, N finite numbers each: logits of events, z of regression tasks."""
    outputs = logits(model, batch)
    if set(outputs) != set(spec.tasks):
        raise Broken(f"expected a logit of {', '.join(spec.tasks)}, got one of {', '.join(outputs) or 'nothing'}")
    for name, value in outputs.items():
        if value.shape != (len(batch),):
            raise Broken(f"{name}: expected [{len(batch)}] logits, one per candidate, got {list(value.shape)}")
        if not np.isfinite(value).all():
            raise Broken(f"{name}: expected finite logits, got {value[~np.isfinite(value)][0]}")


def a_child_is_never_likelier_than_its_parent(outputs: Arrays, parents: Mapping[str, str | None]) -> None:
    """On served probabilities; `parents` are those of events."""
    for name, parent in parents.items():
        if parent is not None and not (outputs[name] <= outputs[parent]).all():
            place = int(np.flatnonzero(~(outputs[name] <= outputs[parent]))[0])
            raise Broken(
                f"{name} given {parent}: expected P({name}) <= P({parent}), "
                f"got {outputs[name][place]:.6g} and {outputs[parent][place]:.6g} for candidate {place}"
            )


def an_amount_is_what_its_parent_lets_through(outputs: Arrays, spec: Spec) -> None:
    """Regression values are 0 or more; the unconditional value is P(parent) times the conditional one."""
    for name, task in regression_tasks(spec.tasks).items():
        if not (outputs[name] >= 0).all():
            raise Broken(f"{name}: expected 0 or more, got {outputs[name].min():.6g}")
        if task.given is not None:
            expected = outputs[task.given] * outputs[conditional(name, task.given)]
            _same(outputs[name], expected, f"{name} given {task.given}", relative=0, absolute=0)


def a_request_scores_the_same_alone(model: Ranker, batch: RequestBatch) -> None:
    """A score does not depend on the other requests of the batch."""
    with _rows_apart(model):
        together = {name: batch.split(value) for name, value in logits(model, batch).items()}
        for index in range(batch.size):
            alone = batch.request(index)
            if len(alone):
                what = f"of request {index} alone, and in a batch of {batch.size}"
                for name, value in logits(model, alone).items():
                    _same(value, together[name][index], f"{name} {what}")


def candidate_order_does_not_matter(model: Ranker, batch: RequestBatch) -> None:
    """Reversing the candidates inside every request reverses their scores."""
    back = np.concatenate([part[::-1] for part in batch.split(np.arange(len(batch)))]) if len(batch) else np.arange(0)
    reversed_ = type(batch)(batch.size, batch.context, {n: v[back] for n, v in batch.candidates.items()}, batch.owner)
    with _rows_apart(model):
        plain, turned = logits(model, batch), logits(model, reversed_)
    for name, value in plain.items():
        _same(turned[name], value[back], f"{name} of reversed candidates, and reversed scores")


def a_batch_of_one_works(model: Ranker, spec: Spec, batch: RequestBatch) -> None:
    """One request of one candidate: one logit per task, and a step of training."""
    first = batch.request(int(batch.owner[0]))
    alone = type(batch)(
        1,
        first.context,
        {name: value[:1] for name, value in first.candidates.items()},
        first.owner[:1],
        {name: value[:1] for name, value in first.labels.items()},
    )
    for name, value in logits(model, alone).items():
        if value.shape != (1,):
            raise Broken(f"{name}: expected [1] logits of one candidate, got {list(value.shape)}")
    task_losses.total(model.losses(tensors(alone, CPU)), spec.tasks).backward()


def every_weight_learns(model: Ranker, spec: Spec, batch: RequestBatch) -> None:
    """After a backward pass every dense weight that learns has a gradient, and every table looked up has changed.

    All labels count as observed, so that every candidate has a loss. Normalisation uses running statistics: with those
    of a batch of identical rows the gradient would be 0.
    """
    labels = {name: np.maximum(np.nan_to_num(label), 0) for name, label in batch.labels.items()}
    batch = replace(batch, labels=labels)
    before = {name: value.clone() for name, value in model.tables().items()}
    moved = tensors(batch, CPU)
    model.train()
    for part in model.modules():
        if isinstance(part, ExpertNorm):
            part.eval()
    task_losses.total(model.losses(moved), spec.tasks).backward()
    dead = [name for name, p in model.dense().items() if p.requires_grad and p.grad is None]
    if dead:
        raise Broken(f"expected a gradient for every weight, got none for {', '.join(dead)}")
    still = [
        name for name, value in model.tables().items() if used(spec, batch, name) and torch.equal(value, before[name])
    ]
    if still:
        raise Broken(f"expected every table to move, got no change of {', '.join(still)}")


def onnx_gives_the_same_scores(plain: Ranker, spec: Spec, batch: RequestBatch, folder: Path) -> None:
    """One graph for one request and for many, to 1e-5 on probabilities, and relatively on regressions.

    `plain` is a ranker over plain tables, as it is read from a checkpoint.
    """
    from serving.graph import network
    from serving.graph.signature import inputs_of, output_names

    path = folder / "model.onnx"
    network.write(plain, spec, batch, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = [feed.name for feed in session.get_inputs()]
    score = scorer(plain, parents_of(spec), CPU)
    for part in (batch, batch.request(0), batch.take(np.zeros(5, np.int64))):
        inputs, by_torch = inputs_of(part), score(part)
        by_onnx = session.run(output_names(spec), {name: inputs[name] for name in feeds})
        for (name, expected), value in zip(by_torch.items(), by_onnx, strict=True):
            _same(
                np.asarray(value),
                expected,
                f"{name} of {len(part)} candidates by ONNX Runtime, and by torch",
                relative=1e-5,
            )


def used(spec: Spec, batch: RequestBatch, table: str) -> bool:
    """Whether a candidate's score depends on a known row of the table."""
    owners = np.unique(batch.owner)
    for side, features in spec.sides():
        for name in features:
            values = (batch.context if side == "context" else batch.candidates).get(name)
            if values is None or values.dtype != np.int64 or spec.table_of(side, name) != table:
                continue
            if (values[owners] if side == "context" else values).any():
                return True
    return False


def parents_of(spec: Spec) -> dict[str, str | None]:
    """The task graph of a spec."""
    return given(spec.tasks)


def event_parents_of(spec: Spec) -> dict[str, str | None]:
    """The task graph of a spec's classification tasks."""
    return given(events(spec.tasks))


def _same(came: np.ndarray, expected: np.ndarray, what: str, *, relative: float = 1e-4, absolute: float = 1e-5) -> None:
    """Raise Broken unless two arrays agree to a tolerance."""
    if came.shape != expected.shape:
        raise Broken(f"{what}: expected {list(expected.shape)}, got {list(came.shape)}")
    far = ~np.isclose(came, expected, rtol=relative, atol=absolute, equal_nan=True)
    if far.any():
        place = int(np.flatnonzero(far)[0])
        raise Broken(f"{what}: expected {expected[place]:.6g}, got {came[place]:.6g} for candidate {place}")
