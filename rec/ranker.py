"""The whole ranking network: embeddings, interaction layers, expert model, objective.

RequestBatch -> InputEmbedding -> InteractionLayers -> expert model -> objective -> {task: logit [N]}
tables and numbers   histories, crosses   [T, N, H]   towers, the task graph

Regression tasks have heads of their own beside the objective; their z is not a logit.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor, nn

from rec import models, objectives
from rec.data import preprocessor as preprocessors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import schema
from rec.errors import SpecError
from rec.losses import task_losses as losses
from rec.losses.regression import NoClassification, RegressionHeads
from rec.modules import interaction
from rec.modules.config import ModelConfig
from rec.modules.embedding import InputEmbedding
from rec.modules.embedding_tables import FusedTables, PlainTables
from rec.modules.heads import Heads
from rec.modules.inputs import AttendedHistory, Inputs
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
        embedding: InputEmbedding,
        interaction: nn.ModuleList,
        model: nn.Module,
        objective: nn.Module,
        regression: RegressionHeads | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.interaction = interaction
        self.model = model
        self.objective = objective
        self.regression = regression

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """{task: z [N]}, a logit or a regression head's; conditional on the parent where a task has one."""
        hidden_TNH = self.hidden(batch)
        if self.regression is None:
            return self.objective(hidden_TNH)
        return self.objective(self.regression.events(hidden_TNH)) | self.regression(hidden_TNH)

    def hidden(self, batch: RequestBatch) -> Tensor:
        """The expert model's output: one representation per task [T, N, H]."""
        inputs = self.embedding(batch)
        if len(self.interaction) == 1:
            context, candidate = self.interaction[0](inputs)
        else:
            sides = [layers(_copy(inputs, u)) for u, layers in enumerate(self.interaction)]
            context, candidate = (torch.stack(side) for side in zip(*sides, strict=True))
        return self.model(context, candidate, batch.owner)

    def losses(self, batch: RequestBatch) -> dict[str, Tensor]:
        """The terms of the training loss: one per task, and the objective's own."""
        hidden_TNH, regression = self.hidden(batch), {}
        if self.regression is not None:
            regression = self.regression.losses(self.regression(hidden_TNH), batch.labels)
            hidden_TNH = self.regression.events(hidden_TNH)
        return self.objective.losses(hidden_TNH, batch.labels) | regression  # pyright: ignore[reportCallIssue]

    def served(self, batch: RequestBatch, parents: Mapping[str, str | None]) -> dict[str, Tensor]:
        """The served outputs: {output: probability, or regression value [N]}, in the order of `tasks.outputs`."""
        z = self(batch)
        if self.regression is None:
            return losses.probabilities(z, parents)
        values = losses.probabilities(z, {n: parent for n, parent in parents.items() if n not in self.regression.tasks})
        values |= self.regression.values(z, values)
        return {name: values[name] for name in outputs_of(parents)}

    def dense(self) -> dict[str, nn.Parameter]:
        """Every parameter outside the embedding tables, by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("embedding.tables.")}

    def fused(self) -> FusedTables:
        """The tables, when they are TorchRec collections."""
        assert isinstance(self.embedding.tables, FusedTables)
        return self.embedding.tables

    def tables(self) -> dict[str, Tensor]:
        """Every embedding table's weight [rows, dim]."""
        tables = self.embedding.tables
        return tables.weights() if isinstance(tables, PlainTables) else self.fused().weights()


def create(spec: Spec, preprocessor: Preprocessor, *, seed: int, device: torch.device) -> Ranker:
    """A ranker with fresh weights drawn from `seed`.

    Raises SpecError for an unknown model or objective, or target attention without a history to attend to.
    """
    torch.manual_seed(seed)
    shape = _layout(spec, preprocessor)
    tables = FusedTables(shape.stored(), shape.slots(), lr=spec.train.table_lr, device=device)
    return _assembled(spec, preprocessor, shape, tables).to(device)


def validate(spec: Spec) -> None:
    """Build the ranker of a spec on torch's meta device, without memory or data, to validate its shapes.

    Vocabularies are empty. Raises SpecError for whatever `create` would refuse, and for a network too large for any
    machine.
    """
    preprocessor = preprocessors.fit([pa.RecordBatch.from_pylist([], schema(spec))], spec)
    meta = torch.device("meta")
    try:
        with meta:
            shape = _layout(spec, preprocessor)
            tables = FusedTables(shape.stored(), shape.slots(), lr=spec.train.table_lr, device=meta)
            ranker = _assembled(spec, preprocessor, shape, tables)
    except RuntimeError as error:
        # torch's error for a shape whose size in bytes overflows 64 bits
        if "overflow" not in str(error):
            raise
        raise SpecError("model: expected weights that fit in memory, got widths whose product overflows") from None
    dense = sum(weight.numel() for weight in ranker.dense().values())
    if dense > MAX_WEIGHTS:
        raise SpecError(f"model: expected at most {MAX_WEIGHTS:,} weights beside the tables, got {dense:,}")


def from_weights(spec: Spec, preprocessor: Preprocessor, weights: dict[str, Tensor]) -> Ranker:
    """A ranker over plain tables with the weights from `weights_of`, on the CPU, without TorchRec."""
    shape = _layout(spec, preprocessor)
    tables = PlainTables({name: weights[f"tables.{name}"] for name in shape.tables}, shape.slots())
    ranker = _assembled(spec, preprocessor, shape, tables)
    dense = {name: weight for name, weight in weights.items() if not name.startswith("tables.")}
    held = {name: weight for name, weight in ranker.state_dict().items() if name.startswith("embedding.tables.")}
    ranker.load_state_dict(dense | held)
    return ranker.eval()


def weights_of(ranker: Ranker) -> dict[str, Tensor]:
    """Every weight, by names that do not depend on the table implementation: `tables.<name>`, and the dense state."""
    dense = {k: v for k, v in ranker.state_dict().items() if not k.startswith("embedding.tables.")}
    return dense | {f"tables.{name}": weight for name, weight in ranker.tables().items()}


def _layout(spec: Spec, preprocessor: Preprocessor) -> Layout:
    config = models.configured(spec.model)
    attended = () if config.attention is None else histories(spec)
    if config.attention is not None and not attended:
        ids = [spec.table_of("candidates", name) for name, f in spec.candidates.items() if isinstance(f, Id)]
        raise SpecError(
            "model.attention: expected a list in [context] that shares a table with an id of [candidates], "
            f'such as seen = {{ kind = "ids", table = "{[*ids, "item"][0]}" }}; there is none'
        )
    return layout(spec, preprocessor, copies=config.copies(given(spec.tasks)), attended=attended)


def _assembled(spec: Spec, preprocessor: Preprocessor, shape: Layout, tables: nn.Module) -> Ranker:
    config = models.configured(spec.model)
    layers = [
        interaction.create(shape.widths(), attention=config.attention, gating=config.feature_gating, cross=config.cross)
        for _ in range(shape.copies)
    ]
    context, candidate = layers[0].context, layers[0].candidate
    model = models.create(spec.model, context=context, candidate=candidate, tasks=given(spec.tasks))
    width: int = model.width  # pyright: ignore[reportAssignmentType]  every expert model has one
    objective = _objective(spec, preprocessor, width=width, config=config)
    regression = None
    if any(task.predict != "event" for task in spec.tasks.values()):
        regression = RegressionHeads(
            spec.tasks, preprocessor.label_bins, width=width, tower_widths=config.tower_widths, dropout=config.dropout
        )
    return Ranker(InputEmbedding(shape, tables), nn.ModuleList(layers), model, objective, regression)


def _objective(spec: Spec, preprocessor: Preprocessor, *, width: int, config: ModelConfig) -> nn.Module:
    tasks = events(spec.tasks)
    if not tasks:
        return NoClassification()
    rates = {name: preprocessor.rates[name] for name in tasks}
    heads = Heads(rates, width=width, tower_widths=config.tower_widths, dropout=config.dropout)
    return objectives.create(spec.objective, heads, tasks)


def _copy(inputs: Inputs, index: int) -> Inputs:
    """One embedding copy of Inputs that have several."""
    histories = [AttendedHistory(h.steps[index], h.known, h.query[index]) for h in inputs.histories]
    return Inputs(inputs.context[index], inputs.candidate[index], inputs.owner, histories)
