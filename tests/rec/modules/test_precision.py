"""Experts and gates in bf16: the same losses to what bf16 resolves, fp32 weights, and fp32 sums over candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec import models
from rec.data import loader, preprocessor
from rec.losses import task_losses
from rec.modules.precision import to_candidates
from rec.training.step import new_fit, step

RESOLVED = 0.02  # of a loss: bf16 has 8 bits


def fitted(spec, data, model=None, **train):
    """A fresh fit of the tiny shop with another `[model]` and other training settings."""
    spec = spec.model_copy(update={"model": model or spec.model, "train": spec.train.model_copy(update=train)})
    return spec, new_fit(spec, preprocessor.load(spec, data / "fitted"))


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("normalise", [False, True])
def test_every_model_trains_in_bf16_as_in_fp32(name, normalise, spec, data, batch):
    """Five steps lead to the same losses, which are fp32, as are weights and gradients."""
    tensors, losses = loader.tensors(batch, torch.device("cpu")), {}
    for precision in ("fp32", "bf16"):
        mine, fit = fitted(spec, data, {"name": name, "normalise": normalise}, precision=precision)
        fit.ranker.train()
        for _ in range(5):
            losses[precision] = step(fit, mine, tensors)
        kinds = {x.dtype for p in fit.ranker.parameters() for x in (p, p.grad) if x is not None}
        assert kinds == {torch.float32}
        assert {loss.dtype for loss in losses[precision].values()} == {torch.float32}
    for task, loss in losses["fp32"].items():
        assert losses["bf16"][task].item() == pytest.approx(loss.item(), rel=RESOLVED, abs=1e-3)
        assert losses["bf16"][task].item() != loss.item()


def test_a_model_is_evaluated_in_fp32(spec, data, batch):
    """What is measured and exported is what fp32 weights give."""
    tensors = loader.tensors(batch, torch.device("cpu"))
    scores = [fitted(spec, data, precision=p)[1].ranker.eval()(tensors)["click"] for p in ("fp32", "bf16")]
    assert torch.equal(*scores)


@pytest.mark.parametrize("experts", [(), (3,)])
def test_the_gradient_of_a_context_is_summed_in_fp32(experts):
    """A thousand candidates of a request, and a request without any: in bf16, the sum would end at 256."""
    rows = torch.zeros(*experts, 3, 8, dtype=torch.bfloat16, requires_grad=True)
    owner = torch.tensor([0] * 1000 + [2] * 5)
    to_candidates(rows, owner).sum().backward()
    assert rows.grad is not None
    wanted = np.broadcast_to(np.array([1000, 0, 5])[:, None], (*experts, 3, 8))
    np.testing.assert_allclose(rows.grad.float(), wanted, rtol=2**-8)


def test_a_batch_without_requests_has_a_gradient():
    """Some ranks have nothing of a batch."""
    rows = torch.zeros(2, 0, 8, dtype=torch.bfloat16, requires_grad=True)
    to_candidates(rows, torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert rows.grad is not None
    assert rows.grad.shape == rows.shape


@pytest.mark.parametrize("per_request", [1, 50, 1000])
def test_gradients_are_those_of_fp32(per_request, spec, data, batch):
    """To a hundredth, however many candidates a request has."""
    one = batch.request(int(np.argmax(np.bincount(batch.owner, minlength=batch.size))))
    repeated = np.zeros(per_request, np.int64)
    wide = type(batch)(
        1,
        one.context,
        {name: value[repeated] for name, value in one.candidates.items()},
        repeated,
        {name: value[repeated] for name, value in one.labels.items()},
    )
    tensors, gradients = loader.tensors(wide, torch.device("cpu")), []
    for precision in ("fp32", "bf16"):
        mine, fit = fitted(spec, data, precision=precision)
        task_losses.total(fit.ranker.train().losses(tensors), mine.tasks).backward()
        gradients.append({n: p.grad for n, p in fit.ranker.dense().items() if p.grad is not None})
    for name, exact in gradients[0].items():
        assert (gradients[1][name] - exact).norm() <= 0.01 * exact.norm() + 1e-6, name
