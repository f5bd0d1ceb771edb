"""The whole ranking network: tables and numbers below, an expert model above."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec import models
from rec.embed import Embedded, Layout, PlainTables, layout
from rec.fitted import Fitted
from rec.fused import FusedTables
from rec.request import RequestBatch
from rec.spec import Spec
from rec.tasks import given


class Ranker(nn.Module):
    """A RequestBatch of tensors -> {task: logit [N]}.

    The model learns how a candidate differs from the base rate, which is added to its logits: a task that happens once
    in a thousand does not spend its first epoch on finding that out.
    """

    prior: Tensor

    def __init__(self, embedded: Embedded, model: nn.Module, rates: Mapping[str, float]) -> None:
        super().__init__()
        self.embedded = embedded
        self.model = model
        self.tasks = list(rates)
        self.register_buffer("prior", torch.tensor(list(rates.values())).logit())

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """One logit per candidate and task, of the conditional probability where a task has a parent."""
        context_BC, candidate_ND = self.embedded(batch)
        prior = dict(zip(self.tasks, self.prior, strict=True))
        return {name: z + prior[name] for name, z in self.model(context_BC, candidate_ND, batch.owner).items()}

    def dense(self) -> dict[str, nn.Parameter]:
        """Every parameter outside the embedding tables, by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("embedded.tables.")}

    def fused(self) -> FusedTables:
        """The tables, when they are TorchRec collections."""
        assert isinstance(self.embedded.tables, FusedTables)
        return self.embedded.tables

    def tables(self) -> dict[str, Tensor]:
        """Every embedding table's weight [rows, dim]."""
        tables = self.embedded.tables
        return dict(tables.weight) if isinstance(tables, PlainTables) else self.fused().weights()


def create(spec: Spec, fitted: Fitted, *, seed: int, device: torch.device) -> Ranker:
    """A ranker with fresh weights drawn from `seed`.

    Raises SpecError when `[model]` names nothing that exists.
    """
    torch.manual_seed(seed)
    shape = layout(spec, fitted)
    tables = FusedTables(shape.tables, shape.slots(), lr=spec.train.table_lr, device=device)
    return _assembled(spec, fitted, shape, tables).to(device)


def from_weights(spec: Spec, fitted: Fitted, weights: dict[str, Tensor]) -> Ranker:
    """A ranker over plain tables with the weights `weights_of` gave, on the CPU, without TorchRec."""
    shape = layout(spec, fitted)
    tables = PlainTables({name: weights[f"tables.{name}"] for name in shape.tables}, shape.slots())
    ranker = _assembled(spec, fitted, shape, tables)
    dense = {name: weight for name, weight in weights.items() if not name.startswith("tables.")}
    ranker.load_state_dict(dense | {f"embedded.tables.weight.{n}": weights[f"tables.{n}"] for n in shape.tables})
    return ranker.eval()


def weights_of(ranker: Ranker) -> dict[str, Tensor]:
    """Every weight by a name that does not depend on how tables are held: `tables.<name>`, and the dense state."""
    dense = {k: v for k, v in ranker.state_dict().items() if not k.startswith("embedded.tables.")}
    return dense | {f"tables.{name}": weight for name, weight in ranker.tables().items()}


def _assembled(spec: Spec, fitted: Fitted, shape: Layout, tables: nn.Module) -> Ranker:
    model = models.create(
        spec.model, context=shape.width("context"), candidate=shape.width("candidates"), tasks=given(spec.tasks)
    )
    rates = {name: fitted.rates[name] for name in given(spec.tasks)}
    return Ranker(Embedded(shape, tables), model, rates)
