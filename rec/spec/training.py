"""`[train]`: how a model learns, on how many processes, and what is kept of it on the way."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from rec.spec.types import Duration, Positive, Strict

ShardingKind = Literal["auto", "table_wise", "row_wise", "column_wise", "table_row_wise", "data_parallel"]


class Sharding(Strict):
    """How embedding tables are divided over processes; what is learnt does not depend on it."""

    default: ShardingKind = Field(default="auto", description="of every table; auto: what TorchRec's planner chooses")
    tables: dict[str, ShardingKind] = Field(default={}, description="of single tables, by name")


class Checkpoints(Strict):
    """When the whole state of training is saved; what is learnt does not depend on it."""

    steps: Positive | None = Field(default=None, description="save every so many steps, and after every epoch")
    minutes: Annotated[float, Field(gt=0)] | None = Field(default=None, description="save every so many minutes")
    keep: Positive = Field(default=1, description="how many of the last checkpoints stay, beside the best")


class Watching(Strict):
    """Who looks at training, and how often (rec/training/watch.py); what is learnt does not depend on it."""

    every: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=100, description="look at one step in so many, and write MODEL/watch.jsonl; 0: never"
    )
    window: Positive = Field(default=16_384, description="the last training candidates of which AUC and NE are shown")
    tensorboard: bool = Field(default=False, description="write event files in MODEL/tensorboard")
    mlflow: str | None = Field(default=None, description="URI of an MLflow tracking server")
    watchers: list[str] = Field(default=[], description="of other packages: names, or package.module:Class")


class Train(Strict):
    """Optimization, regularization, early stopping and what is kept (docs/training.md)."""

    batch: Positive = Field(default=1024, description="candidates per step, about, over all processes")
    mode: Literal["epochs", "progressive"] = Field(
        default="epochs", description="progressive: each day (UTC) in order is evaluated on, then learnt from once"
    )
    epochs: Positive = Field(default=10, description="passes over the training split, at most; progressive: one")
    lr: Annotated[float, Field(gt=0)] = Field(
        default=3e-3, description="learning rate of AdamW, for everything but embedding tables"
    )
    table_lr: Annotated[float, Field(gt=0)] = Field(default=0.02, description="learning rate of embedding tables")
    table_optimizer: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = Field(
        default="rowwise_adagrad", description="of embedding tables, fused into the backward pass; adam: CUDA alone"
    )
    table_dtype: Literal["fp32", "fp16"] = Field(
        default="fp32", description="of embedding tables; fp16 is rounded stochastically where the device does so"
    )
    tables: Literal["keep", "redraw"] = Field(
        default="keep", description="redraw: embedding tables, and their optimizer's state, start anew in every epoch"
    )
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of ids that are made unknown in training; a feature may say its own"
    )
    table_l2: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="L2 penalty on the rows that a step looks up; a feature may say its own (l2)"
    )
    task_weighting: Literal["equal", "count"] = Field(
        default="equal",
        description="equal: a task's loss is the mean over its own candidates; count: every label weighs the same",
    )
    sample_weight: str | None = Field(
        default=None,
        description="SQL expression: the sample weight of every task that does not say one; '1' is none",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="of AdamW; not of biases and normalisations"
    )
    warmup: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=0, description="steps over which lr and table_lr rise linearly from 0"
    )
    decay: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="of lr and table_lr after that, to 0 at the end of the last epoch"
    )
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="gradient clipping: the largest norm, of everything but tables"
    )
    accumulate: Positive = Field(default=1, description="micro-batches a step is computed in, to save memory")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="evaluate and keep a moving average of all weights but tables, of this decay, such as 0.999",
    )
    average: Positive = Field(
        default=1,
        description="evaluate and keep the mean of the weights, tables too, at the last so many epochs' ends",
    )
    refit: bool = Field(
        default=False,
        description="train anew on train and validation, for the epochs that validation chose; those weights are kept",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="of experts and gates in a step; weights, towers and losses stay fp32"
    )
    compile: bool = Field(
        default=False, description="compile the expert model by torch.compile; on CPUs measured to be slower"
    )
    patience: Positive = Field(
        default=2, description="early stopping: validations in a row without a better one before training stops"
    )
    monitor: Literal["normalised_entropy", "auc"] = Field(
        default="normalised_entropy",
        description="what early stopping compares on validation; of a regression: normalised error, or concordance",
    )
    validate_every: Positive | None = Field(
        default=None, description="validate every so many steps, beside the end of each epoch"
    )
    shuffle: Positive = Field(default=200_000, description="requests mixed at a time, over all processes")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: CUDA where there is one")
    timeout: Duration = Field(default=timedelta(minutes=5), description="how long a process waits for the others")
    sharding: Sharding = Sharding()
    checkpoint: Checkpoints = Checkpoints()
    watch: Watching = Watching()


# the weights of a step do not depend on them
NOT_LEARNT = ("epochs", "patience", "timeout", "sharding", "checkpoint", "watch")
