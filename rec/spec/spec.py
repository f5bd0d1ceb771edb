"""The spec: one TOML file, strictly typed, the only configuration of a run.

    name = "kuairand"
    [source]                     where the logs are              -> features/sources/<kind>.py
    [keys]                       key columns: user, item, time, request
    [logs]                       how unusable and repeated rows are handled
    [requests] [sessions]        how impressions become requests, and requests sessions
    [split]                      which requests train, validate, test
    [context] [candidates]       one feature per line            -> the struct fields of the session table
    [events.<name>]              behaviours that features count
    [tasks.<name>]               one behaviour each              -> the label fields of the session table
    [model] [objective] [train] [evaluate] [serve]

`[source]`, `[model]` and `[objective]` are checked by the file they name, because a new one is one file and this one
should not have to know it. Everything else is checked here, before any data is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rec.spec.features import AnyFeature, Feature, Id, Ids, Number, has_rows, is_key
from rec.spec.training import Train
from rec.spec.types import MANY, Duration, Positive, Separator, Share, Strict, Timestamp, TimeZone

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
BUNDLE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"  # of a run too: safe in a path, a label and a header


OutcomeTime = str | Literal[False] | None
_OUTCOME_TIME = "the column that says when it happened, in any form of keys.time; false: none does; not given: guessed"


class Keys(Strict):
    """Key columns of the logs: user, item, timestamp, request and session."""

    user: str | None = Field(default=None, description="who was shown something")
    item: str | None = Field(default=None, description="what was shown")
    time: str | None = Field(default=None, description="when it was shown")
    time_unit: Literal["s", "ms", "us", "ns", "auto"] = Field(
        default="s", description="of a time given as a number; auto: inferred from its size, file by file"
    )
    time_format: str | None = Field(default=None, description="of a time given as text that is not ISO: strftime's")
    time_zone: TimeZone = Field(
        default="UTC", description='of timestamps that do not say theirs, such as "Asia/Shanghai"'
    )
    request: str | None = Field(default=None, description="the request of an impression; none: see [requests]")
    session: str | None = Field(default=None, description="the session of an impression; none: see [sessions]")


class Requests(Strict):
    """How impressions without a request id are grouped: same user, no pause longer than `gap`."""

    gap: Duration = Field(default=timedelta(minutes=30), description="the longest pause inside a request")


class SessionRule(Strict):
    """How requests without a session id are grouped to sessions: same user, no pause longer than `gap`."""

    gap: Duration = Field(default=timedelta(minutes=30), description="the longest pause inside a session")


class LogRules(Strict):
    """How unusable and repeated rows are handled."""

    bad_rows: Share = Field(default=0.01, description="the share of rows that may be unusable; more is refused")
    duplicates: Literal["drop", "keep"] = Field(
        default="drop", description="rows equal in every column read and in their timestamp: the first is kept"
    )
    end: Timestamp | None = Field(
        default=None, description="until when outcomes were collected; none: the last timestamp in the logs"
    )
    order: Literal["any", "time"] = Field(
        default="any", description="time: rows are in order of time, files as named, and are read without sorting"
    )
    columns: str | None = Field(default=None, description="a folder of columns made by code, one file each")
    missing: list[str] = Field(default=["", "\\N", "nan", "NaN"], description="words of text that mean: no value")
    quote: Literal['"', "'", ""] = Field(
        default='"', description='around values of CSV and TSV files; "": nothing is quoted'
    )
    separator: Separator = Field(default=",", description="one character between columns of CSV files; TSV has tabs")
    decimal: Literal[".", ","] = Field(
        default=".", description='of numbers in text; ",": 7,5 is a number, and 7.5 or 1.234,5 is none'
    )


class Event(Strict):
    """A behaviour that counts, rates and histories may use, and that no task predicts."""

    label: str = Field(description="SQL expression over the columns of an impression, e.g. 'kind = 3'")
    time: OutcomeTime = Field(default=None, description=_OUTCOME_TIME)
    window: Duration = Field(default=timedelta(0), description="it is known this long after the impression")


class Split(Strict):
    """Requests from `validation` on validate, from `test` on test; or a column of the logs says which."""

    validation: Timestamp | None = Field(default=None, description="the first timestamp of the validation split")
    test: Timestamp | None = Field(default=None, description="the first timestamp of the test split")
    column: str | None = Field(default=None, description="a column that says train, validation or test")

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        by_time = self.validation is not None and self.test is not None
        if by_time == (self.column is not None):
            raise ValueError("expected either 'validation' and 'test' (timestamps), or 'column'")
        if self.validation and self.test and self.validation >= self.test:
            raise ValueError("expected 'validation' before 'test'")
        return self


class Task(Strict):
    """One behaviour to predict: its label, its parent, when its outcome is known, its weights in loss and score."""

    label: str = Field(description="SQL expression over the columns of an impression, e.g. 'clicked AND dwell >= 30'")
    time: OutcomeTime = Field(default=None, description=_OUTCOME_TIME)
    predict: Literal["event", "log", "ordinal", "quantile"] = Field(
        default="event",
        description="event: whether it happens, a classification; others: how much, a regression "
        "(docs/models/regression.md)",
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.5, description="quantile: which one")
    bins: Annotated[int, Field(ge=2, le=MANY)] = Field(default=32, description="ordinal: how many, of about equal mass")
    given: str | None = Field(default=None, description="its parent: the task without which this one cannot happen")
    space: Literal["all", "parent"] = Field(
        default="all",
        description="of a child: all: entire-space loss (ESMM); parent: click-space loss, where the parent happened",
    )
    window: Duration = Field(default=timedelta(0), description="the outcome is known this long after the impression")
    weight: Annotated[float, Field(ge=0)] = Field(default=1.0, description="weight of its loss")
    sample_weight: str | None = Field(
        default=None,
        description="SQL expression: how much a candidate counts in this task's loss and metrics, 0 or more, "
        "e.g. 'weight' or '1 / propensity'; none: all count alike",
    )
    negatives: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="negative sampling: the share of training negatives that is kept; the loss corrects for it",
    )
    value: float = Field(
        default=1.0, description="weight in the fused score: of one event, or of one unit of a regression"
    )


class Evaluate(Strict):
    """Grouped AUC (GAUC): by which key, and how groups are weighted."""

    group: str | None = Field(default=None, description="a context feature; none: the request")
    weight: Literal["candidates", "equal"] = Field(default="candidates", description="of a group: its size, or 1")


class Serve(Strict):
    """Limits on what a stranger can send, and on how old stored features may be."""

    max_candidates: Positive = Field(default=2000, description="candidates in one request")
    max_feature_age: Duration | None = Field(
        default=None, description="of stored features; with older ones an answer is degraded; none: any age will do"
    )


class Spec(Strict):
    """The whole description of a ranking problem. Made by `load` or `parse`, which turn mistakes into SpecError."""

    name: Annotated[str, Field(pattern=BUNDLE_NAME, description="of the run and its bundle")]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(default=1, description="of everything random")
    source: dict[str, Any] = {}
    logs: LogRules = LogRules()
    keys: Keys = Keys()
    requests: Requests = Requests()
    sessions: SessionRule = SessionRule()
    split: Split = Split(column="split")
    context: dict[str, Feature] = {}
    candidates: dict[str, Feature] = {}
    events: dict[str, Event] = {}
    tasks: dict[str, Task]
    model: dict[str, Any] = {"name": "mmoe"}
    objective: dict[str, Any] = {"name": "esmm"}
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()

    @model_validator(mode="before")
    @classmethod
    def _same_weight(cls, tables: Any) -> Any:
        """Tasks that say no sample weight have that of `[train]`."""
        train, tasks = (tables.get(name) for name in ("train", "tasks")) if isinstance(tables, dict) else (None, None)
        weight = train.get("sample_weight") if isinstance(train, dict) else None
        if weight is None or not isinstance(tasks, dict):
            return tables
        weighted = {
            name: {"sample_weight": weight, **task} if isinstance(task, dict) else task for name, task in tasks.items()
        }
        return {**tables, "tasks": weighted}

    def sides(self) -> Iterator[tuple[str, dict[str, AnyFeature]]]:
        """`("context", its features)`, then `("candidates", its features)`."""
        yield "context", self.context
        yield "candidates", self.candidates

    def key_feature(self, key: Literal["user", "item"]) -> str | None:
        """The feature that holds a key: of the key column's name, or the first that is read from that column.

        `who` for `keys = { user = "user id" }` and `context = { who = { kind = "id", column = "user id" } }`.
        """
        column = getattr(self.keys, key)
        features = self.context if key == "user" else self.candidates
        holding = [
            name
            for name, feature in features.items()
            if column is not None and (getattr(feature, "column", None) or name) == column and is_key(feature)
        ]
        return column if column in holding else next(iter(holding), None)

    def table_of(self, side: str, name: str) -> str:
        """The embedding table a feature looks its rows up in."""
        feature = dict(self.sides())[side][name]
        assert has_rows(feature)
        return name if isinstance(feature, Number) else feature.table or name

    def tables(self) -> dict[str, Id | Ids | Number]:
        """Every embedding table, by name, with the feature that declares it."""
        return {
            name: feature
            for _, features in self.sides()
            for name, feature in features.items()
            if has_rows(feature) and (isinstance(feature, Number) or feature.table is None)
        }
