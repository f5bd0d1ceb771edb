"""The whole ranking network, from the bottom up.

RequestBatch -> Embedded -> Below -> expert model -> objective -> {task: logit [N]}
tables and numbers   histories, crosses   [T, N, H]   towers, the task graph
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec import losses, models, objectives
from rec.below import Below
from rec.embed import Embedded, Layout, PlainTables, layout
from rec.fitted import Fitted
from rec.fused import FusedTables
from rec.heads import Heads
from rec.inputs import Inputs, Past
from rec.request import RequestBatch
from rec.spec import Spec
from rec.tasks import given, in_order


class Ranker(nn.Module):
    """A RequestBatch of tensors -> {task: logit [N]}."""

    def __init__(self, embedded: Embedded, below: nn.ModuleList, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.embedded = embedded
        self.below = below
        self.model = model
        self.objective = objective

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """One logit per candidate and task, of the conditional probability where a task has a parent."""
        return self.objective(self.hidden(batch))

    def hidden(self, batch: RequestBatch) -> Tensor:
        """What the experts make of a batch: one representation per task [T, N, H]."""
        inputs = self.embedded(batch)
        if len(self.below) == 1:
            context, candidate = self.below[0](inputs)
        else:
            sides = [below(_copy(inputs, u)) for u, below in enumerate(self.below)]
            context, candidate = (torch.stack(side) for side in zip(*sides, strict=True))
        return self.model(context, candidate, batch.owner)

    def losses(self, batch: RequestBatch) -> dict[str, Tensor]:
        """What training adds up: the loss of every task, and whatever else the objective asks for."""
        return self.objective.losses(self.hidden(batch), batch.labels)  # pyright: ignore[reportCallIssue]

    def served(self, batch: RequestBatch, parents: Mapping[str, str | None]) -> dict[str, Tensor]:
        """What is served: {output: probability [N]}."""
        return losses.probabilities(self(batch), parents)

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

    Raises SpecError when `[model]` or `[objective]` names nothing that exists.
    """
    torch.manual_seed(seed)
    shape = layout(spec, fitted, copies=_copies(spec))
    tables = FusedTables(shape.stored(), shape.slots(), lr=spec.train.table_lr, device=device)
    return _assembled(spec, fitted, shape, tables).to(device)


def from_weights(spec: Spec, fitted: Fitted, weights: dict[str, Tensor]) -> Ranker:
    """A ranker over plain tables with the weights `weights_of` gave, on the CPU, without TorchRec."""
    shape = layout(spec, fitted, copies=_copies(spec))
    tables = PlainTables({name: weights[f"tables.{name}"] for name in shape.tables}, shape.slots())
    ranker = _assembled(spec, fitted, shape, tables)
    dense = {name: weight for name, weight in weights.items() if not name.startswith("tables.")}
    ranker.load_state_dict(dense | {f"embedded.tables.weight.{n}": weights[f"tables.{n}"] for n in shape.tables})
    return ranker.eval()


def weights_of(ranker: Ranker) -> dict[str, Tensor]:
    """Every weight by a name that does not depend on how tables are held: `tables.<name>`, and the dense state."""
    dense = {k: v for k, v in ranker.state_dict().items() if not k.startswith("embedded.tables.")}
    return dense | {f"tables.{name}": weight for name, weight in ranker.tables().items()}


def _copies(spec: Spec) -> int:
    return models.configured(spec.model).copies(given(spec.tasks))


def _assembled(spec: Spec, fitted: Fitted, shape: Layout, tables: nn.Module) -> Ranker:
    sizes = models.configured(spec.model)
    below = [Below(sizes, shape.shape()) for _ in range(shape.copies)]
    model = models.create(spec.model, context=below[0].context, candidate=below[0].candidate, tasks=given(spec.tasks))
    rates = {name: fitted.rates[name] for name in in_order(spec.tasks)}
    tasks = {name: spec.tasks[name] for name in rates}
    width: int = model.width  # pyright: ignore[reportAssignmentType]  every body has one
    objective = objectives.create(spec.objective, Heads(rates, width=width, sizes=sizes), tasks)
    return Ranker(Embedded(shape, tables), nn.ModuleList(below), model, objective)


def _copy(inputs: Inputs, index: int) -> Inputs:
    """One copy of Inputs whose ids have several."""
    pasts = [Past(past.steps[index], past.known, past.query[index]) for past in inputs.pasts]
    return Inputs(inputs.context[index], inputs.candidate[index], inputs.owner, pasts)
