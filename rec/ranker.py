"""The whole ranking network, from the bottom up.

RequestBatch -> Embedded -> Below -> expert model -> objective -> {task: logit [N]}
tables and numbers   histories, crosses   [T, N, H]   towers, the task graph

Tasks that predict a quantity have towers of their own beside the objective, and a z that is no logit.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor, nn

from rec import models, objectives
from rec.data import preprocessor
from rec.data.preprocessor import Fitted
from rec.data.session_table import schema
from rec.errors import SpecError
from rec.losses import task_losses as losses
from rec.losses.regression import NoEvents, Quantities
from rec.modules.config import Sizes
from rec.modules.embedding import Embedded
from rec.modules.embedding_tables import FusedTables, PlainTables
from rec.modules.heads import Heads
from rec.modules.inputs import Inputs, Past
from rec.modules.interaction import Below
from rec.modules.layout import Layout, histories, layout
from rec.request import RequestBatch
from rec.spec import Id, Spec
from rec.spec.tasks import events, given, outputs_of

MAX_WEIGHTS = (
    10**10
)  # 40 GB: more than any ranker has beside its tables, and what a slip of the pen in a width asks for


class Ranker(nn.Module):
    """A RequestBatch of tensors -> {task: z [N]}."""

    def __init__(
        self,
        embedded: Embedded,
        below: nn.ModuleList,
        model: nn.Module,
        objective: nn.Module,
        quantities: Quantities | None = None,
    ) -> None:
        super().__init__()
        self.embedded = embedded
        self.below = below
        self.model = model
        self.objective = objective
        self.quantities = quantities

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """One z per candidate and task, a logit or a quantity's; given its parent, where a task has one."""
        hidden_TNH = self.hidden(batch)
        if self.quantities is None:
            return self.objective(hidden_TNH)
        return self.objective(self.quantities.events(hidden_TNH)) | self.quantities(hidden_TNH)

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
        hidden_TNH, found = self.hidden(batch), {}
        if self.quantities is not None:
            found = self.quantities.losses(self.quantities(hidden_TNH), batch.labels)
            hidden_TNH = self.quantities.events(hidden_TNH)
        return self.objective.losses(hidden_TNH, batch.labels) | found  # pyright: ignore[reportCallIssue]

    def served(self, batch: RequestBatch, parents: Mapping[str, str | None]) -> dict[str, Tensor]:
        """What is served: {output: probability, or value of a quantity [N]}, in the order of `tasks.outputs`."""
        z = self(batch)
        if self.quantities is None:
            return losses.probabilities(z, parents)
        found = losses.probabilities(z, {n: parent for n, parent in parents.items() if n not in self.quantities.tasks})
        found |= self.quantities.values(z, found)
        return {name: found[name] for name in outputs_of(parents)}

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
        return tables.weights() if isinstance(tables, PlainTables) else self.fused().weights()


def create(spec: Spec, fitted: Fitted, *, seed: int, device: torch.device) -> Ranker:
    """A ranker with fresh weights drawn from `seed`.

    Raises SpecError when `[model]` or `[objective]` names nothing that exists, or asks for attention to nothing.
    """
    torch.manual_seed(seed)
    shape = _layout(spec, fitted)
    tables = FusedTables(shape.stored(), shape.slots(), lr=spec.train.table_lr, device=device)
    return _assembled(spec, fitted, shape, tables).to(device)


def validate(spec: Spec) -> None:
    """Build the ranker of a spec on torch's meta device: shapes and rules without numbers, before there is any data.

    Vocabularies are those of no rows. Raises SpecError for whatever `create` would refuse, and for a network that no
    machine holds.
    """
    fitted = preprocessor.fit([pa.RecordBatch.from_pylist([], schema(spec))], spec)
    meta = torch.device("meta")
    try:
        with meta:
            shape = _layout(spec, fitted)
            tables = FusedTables(shape.stored(), shape.slots(), lr=spec.train.table_lr, device=meta)
            ranker = _assembled(spec, fitted, shape, tables)
    except RuntimeError as error:
        # what torch says of a shape whose bytes no 64-bit number counts
        if "overflow" not in str(error):
            raise
        raise SpecError("model: expected weights that fit in memory, got widths whose product overflows") from None
    dense = sum(weight.numel() for weight in ranker.dense().values())
    if dense > MAX_WEIGHTS:
        raise SpecError(f"model: expected at most {MAX_WEIGHTS:,} weights beside the tables, got {dense:,}")


def from_weights(spec: Spec, fitted: Fitted, weights: dict[str, Tensor]) -> Ranker:
    """A ranker over plain tables with the weights `weights_of` gave, on the CPU, without TorchRec."""
    shape = _layout(spec, fitted)
    tables = PlainTables({name: weights[f"tables.{name}"] for name in shape.tables}, shape.slots())
    ranker = _assembled(spec, fitted, shape, tables)
    dense = {name: weight for name, weight in weights.items() if not name.startswith("tables.")}
    held = {name: weight for name, weight in ranker.state_dict().items() if name.startswith("embedded.tables.")}
    ranker.load_state_dict(dense | held)
    return ranker.eval()


def weights_of(ranker: Ranker) -> dict[str, Tensor]:
    """Every weight by a name that does not depend on how tables are held: `tables.<name>`, and the dense state."""
    dense = {k: v for k, v in ranker.state_dict().items() if not k.startswith("embedded.tables.")}
    return dense | {f"tables.{name}": weight for name, weight in ranker.tables().items()}


def _layout(spec: Spec, fitted: Fitted) -> Layout:
    sizes = models.configured(spec.model)
    attended = () if sizes.attention is None else histories(spec)
    if sizes.attention is not None and not attended:
        ids = [spec.table_of("candidates", name) for name, f in spec.candidates.items() if isinstance(f, Id)]
        raise SpecError(
            "model.attention: expected a list in [context] that shares a table with an id of [candidates], "
            f'such as seen = {{ kind = "ids", table = "{[*ids, "item"][0]}" }}; there is none'
        )
    return layout(spec, fitted, copies=sizes.copies(given(spec.tasks)), attended=attended)


def _assembled(spec: Spec, fitted: Fitted, shape: Layout, tables: nn.Module) -> Ranker:
    sizes = models.configured(spec.model)
    below = [Below(sizes, shape.shape()) for _ in range(shape.copies)]
    model = models.create(spec.model, context=below[0].context, candidate=below[0].candidate, tasks=given(spec.tasks))
    width: int = model.width  # pyright: ignore[reportAssignmentType]  every body has one
    objective = _objective(spec, fitted, width=width, sizes=sizes)
    quantities = None
    if any(task.predict != "event" for task in spec.tasks.values()):
        quantities = Quantities(spec.tasks, fitted.targets, width=width, sizes=sizes)
    return Ranker(Embedded(shape, tables), nn.ModuleList(below), model, objective, quantities)


def _objective(spec: Spec, fitted: Fitted, *, width: int, sizes: Sizes) -> nn.Module:
    tasks = events(spec.tasks)
    if not tasks:
        return NoEvents()
    heads = Heads({name: fitted.rates[name] for name in tasks}, width=width, sizes=sizes)
    return objectives.create(spec.objective, heads, tasks)


def _copy(inputs: Inputs, index: int) -> Inputs:
    """One copy of Inputs whose ids have several."""
    pasts = [Past(past.steps[index], past.known, past.query[index]) for past in inputs.pasts]
    return Inputs(inputs.context[index], inputs.candidate[index], inputs.owner, pasts)
