"""The whole ranking network: embeddings, interaction layers, expert model, objective.

RequestBatch -> InputEmbedding -> InteractionLayers -> expert model -> objective -> {task: logit [N]}
tables and numbers   histories, crosses   [T, N, H]   towers, the task graph

Regression tasks have heads of their own beside the objective; their z is not a logit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import torch
from torch import Tensor, nn

from rec import models, objectives
from rec.data import preprocessor as preprocessors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import schema
from rec.errors import SpecError
from rec.losses import embedding_l2
from rec.losses import task_losses as losses
from rec.losses.list_losses import list_losses
from rec.losses.regression import NoClassification, RegressionHeads
from rec.modules import bias_tower, interaction, precision
from rec.modules.bias_tower import BiasTower
from rec.modules.config import ModelConfig
from rec.modules.embedding import InputEmbedding
from rec.modules.embedding_tables import PlainTables, StoredTables, TableOptimizer
from rec.modules.heads import Heads, moved
from rec.modules.inputs import AttendedHistory, Inputs
from rec.modules.layout import Layout, histories, layout
from rec.request import RequestBatch
from rec.spec import Id, Spec, Task, Train
from rec.spec.tasks import events, given, outputs_of, weighted

Tables = Callable[[Layout], nn.Module]  # makes the embedding tables of a layout
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
        *,
        bias: BiasTower | None = None,
        bf16: bool = False,
        lists: tuple[float, float] = (0.0, 0.0),
        tasks: Mapping[str, Task] | None = None,
        l2: embedding_l2.Penalties | None = None,
    ) -> None:
        super().__init__()
        self.l2 = l2 or {}
        self.lists, self.tasks = lists, events(tasks or {})  # weights of losses over requests, and whose
        self.bf16 = bf16  # train experts and gates in bf16 (rec/modules/precision.py)
        self.embedding = embedding
        self.interaction = interaction
        self.model = model
        self.objective = objective
        self.regression = regression
        self.bias = bias

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """{task: z [N]}, a logit or a regression head's; conditional on the parent where a task has one."""
        hidden_TNH = self.hidden(batch)
        if self.regression is None:
            return self.objective(hidden_TNH)
        return self.objective(self.regression.events(hidden_TNH)) | self.regression(hidden_TNH)

    def hidden(self, batch: RequestBatch, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """The expert model's output: one representation per task [T, N, H]; `rows` as in InputEmbedding.forward."""
        inputs = self.embedding(batch, rows)
        if len(self.interaction) == 1:
            context, candidate = self.interaction[0](inputs)
        else:
            sides = [layers(_copy(inputs, u)) for u, layers in enumerate(self.interaction)]
            context, candidate = (torch.stack(side) for side in zip(*sides, strict=True))
        return precision.expert_output(self.model, context, candidate, batch.owner, half=self.bf16 and self.training)

    def losses(self, batch: RequestBatch, rows: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What training adds up: the loss of every task, and whatever else the objective asks for."""
        penalty = {}
        if self.l2:
            rows = self.embedding.lookup(batch) if rows is None else rows
            penalty = {embedding_l2.NAME: embedding_l2.loss(self.embedding.by_feature(batch, rows), self.l2)}
        if self.bias is None:
            return self._losses(batch, rows) | penalty
        with moved(self.objective.heads, self.bias(batch)):  # pyright: ignore[reportArgumentType]
            return self._losses(batch, rows) | penalty

    def _losses(self, batch: RequestBatch, rows: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        hidden_TNH, regression = self.hidden(batch, rows), {}
        if self.regression is not None:
            regression = self.regression.losses(self.regression(hidden_TNH), batch.labels)
            hidden_TNH = self.regression.events(hidden_TNH)
        losses = self.objective.losses(hidden_TNH, batch.labels)  # pyright: ignore[reportCallIssue]
        if any(self.lists):
            logits = self.objective(hidden_TNH)
            losses |= list_losses(logits, batch.labels, self.tasks, owner_N=batch.owner, weights=self.lists)
        return losses | regression

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

    def dense_state(self) -> dict[str, Tensor]:
        """Every parameter and buffer outside the embedding tables, the live tensors, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("embedding.tables.")}

    def stored_tables(self) -> StoredTables:
        """The tables of a ranker that trains: TorchRec collections, whole or sharded."""
        assert not isinstance(self.embedding.tables, PlainTables)
        return self.embedding.tables  # pyright: ignore[reportReturnType]

    def tables(self) -> dict[str, Tensor]:
        """Every embedding table's weight [rows, dim], where each is held whole."""
        tables = self.embedding.tables
        assert hasattr(tables, "weights"), "sharded tables are read from a checkpoint"
        return tables.weights()  # pyright: ignore[reportCallIssue]


def create(
    spec: Spec,
    preprocessor: Preprocessor,
    *,
    seed: int,
    device: torch.device,
    tables: Tables | None = None,
) -> Ranker:
    """A ranker with fresh weights drawn from `seed`; its tables are held whole unless `tables` makes them.

    Raises SpecError for an unknown model or objective, or target attention without a history to attend to.
    """
    from rec.modules.fused_tables import FusedTables  # here, since TorchRec takes seconds to import

    shape = layout_of(spec, preprocessor)
    held = (
        FusedTables(shape.stored(), shape.slots(), optimizer=table_optimizer(spec.train), device=device, seed=seed)
        if tables is None
        else tables(shape)
    )
    # after the tables, whose kernels draw as many numbers as a process holds of them
    torch.manual_seed(seed)
    return _assembled(spec, preprocessor, shape, held).to(device)


def table_optimizer(train: Train) -> TableOptimizer:
    """The optimizer of embedding tables that `[train]` describes."""
    return TableOptimizer(train.table_optimizer, train.table_lr, half=train.table_dtype == "fp16")


def validate(spec: Spec) -> None:
    """Build the ranker of a spec on torch's meta device, without memory or data, to validate its shapes.

    Vocabularies are empty. Raises SpecError for whatever `create` would refuse, and for a network too large for any
    machine.
    """
    dense = dense_weights(spec, preprocessors.fit([pa.RecordBatch.from_pylist([], schema(spec))], spec))
    if dense > MAX_WEIGHTS:
        raise SpecError(f"model: expected at most {MAX_WEIGHTS:,} weights beside the tables, got {dense:,}")


def dense_weights(spec: Spec, preprocessor: Preprocessor) -> int:
    """How many weights a ranker has beside its tables; SpecError as `create`, and for a size no 64 bits count."""
    meta = torch.device("meta")
    try:
        with meta:
            shape = layout_of(spec, preprocessor)
            tables = PlainTables({name: torch.empty(0) for name in shape.tables}, shape.slots())
            ranker = _assembled(spec, preprocessor, shape, tables)
    except RuntimeError as error:
        # torch's error for a shape whose size in bytes overflows 64 bits
        if "overflow" not in str(error):
            raise
        raise SpecError("model: expected weights that fit in memory, got widths whose product overflows") from None
    return sum(weight.numel() for weight in ranker.dense().values())


def from_weights(spec: Spec, preprocessor: Preprocessor, weights: dict[str, Tensor]) -> Ranker:
    """A ranker over plain tables with the weights `weights_of` gave, on the CPU, without TorchRec."""
    shape = layout_of(spec, preprocessor)
    tables = PlainTables({name: weights[f"tables.{name}"] for name in shape.tables}, shape.slots())
    ranker = _assembled(spec, preprocessor, shape, tables)
    dense = {name: weight for name, weight in weights.items() if not name.startswith("tables.")}
    held = {name: weight for name, weight in ranker.state_dict().items() if name.startswith("embedding.tables.")}
    ranker.load_state_dict(dense | held)
    return ranker.eval()


def weights_of(ranker: Ranker) -> dict[str, Tensor]:
    """Every weight by a name that does not depend on how tables are held: `tables.<name>`, and the dense state."""
    return ranker.dense_state() | {f"tables.{name}": weight for name, weight in ranker.tables().items()}


def layout_of(spec: Spec, preprocessor: Preprocessor) -> Layout:
    """Which features look up which tables, with as many copies of each id as the model wants."""
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
        interaction.create(
            shape.widths(),
            attention=config.attention,
            request=config.request,
            gating=config.feature_gating,
            cross=config.cross,
        )
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
    bf16 = spec.train.precision == "bf16"
    bias = bias_tower.create(spec, preprocessor, tasks=len(events(spec.tasks)))
    if bias is not None and not isinstance(getattr(objective, "heads", None), Heads):
        raise SpecError(f"objective.name: {spec.objective.get('name')!r} has no place for features with bias = true")
    parts = (InputEmbedding(shape, tables), nn.ModuleList(layers), model, objective, regression)
    return Ranker(*parts, bias=bias, bf16=bf16, lists=_lists(spec), tasks=spec.tasks, l2=embedding_l2.of(spec))


def _lists(spec: Spec) -> tuple[float, float]:
    """The weights of losses over requests; an objective of another package may have none."""
    if not events(spec.tasks):
        return 0.0, 0.0
    config = objectives.configured(spec.objective)
    return getattr(config, "listwise", 0.0), getattr(config, "pairwise", 0.0)


def _objective(spec: Spec, preprocessor: Preprocessor, *, width: int, config: ModelConfig) -> nn.Module:
    tasks = events(spec.tasks)
    if not tasks:
        return NoClassification()
    rates = {name: preprocessor.rates[name] for name in tasks}
    heads = Heads(rates, width=width, tower_widths=config.tower_widths, dropout=config.dropout)
    objective = objectives.create(spec.objective, heads, tasks)
    if weighted(tasks) and not getattr(objective, "sample_weights", False):
        raise SpecError(
            f"tasks.{weighted(tasks)[0]}.sample_weight: objective {spec.objective.get('name')!r} has no place for "
            "sample weights (an Objective that has says sample_weights = True)"
        )
    return objective


def _copy(inputs: Inputs, index: int) -> Inputs:
    """One embedding copy of Inputs that have several."""
    histories = [AttendedHistory(h.steps[index], h.known, h.query[index]) for h in inputs.histories]
    return Inputs(inputs.context[index], inputs.candidate[index], inputs.owner, histories)
