"""The spec: one TOML file, strictly typed, the only truth about a run.

    name = "kuairand"
    [source]                     where the logs are              -> features/sources/<kind>.py
    [keys]                       which columns say who, what, when
    [requests]                   how impressions become requests
    [split]                      which requests train, validate, test
    [context] [candidates]       one feature per line            -> the struct fields of the session table
    [tasks.<name>]               one behaviour each              -> the label fields of the session table
    [model] [objective] [train] [evaluate] [serve]

`[source]`, `[model]` and `[objective]` are checked by the file they name, because a new one is one file and this one
should not have to know it. Everything else is checked here, before any data is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rec.errors import SpecError

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if match is None:
        raise ValueError("expected a duration such as '30s', '45m', '12h' or '7d'")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _moment(value: object) -> object:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A frozen table of the spec that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Keys(Strict):
    """Columns of the logs that say who, what, when and in which request."""

    user: str | None = Field(default=None, description="who was shown something")
    item: str | None = Field(default=None, description="what was shown")
    time: str | None = Field(default=None, description="when it was shown")
    time_unit: Literal["s", "ms", "us", "ns"] = Field(default="s", description="of a time given as a number")
    request: str | None = Field(default=None, description="the request of an impression; none: see [requests]")


class Requests(Strict):
    """How impressions without a request id are grouped: same user, no pause longer than `gap`."""

    gap: Duration = Field(default=timedelta(minutes=30), description="the longest pause inside a request")


class Split(Strict):
    """Requests from `validation` on validate, from `test` on test; or a column of the logs says which."""

    validation: Moment | None = Field(default=None, description="the first moment of the validation split")
    test: Moment | None = Field(default=None, description="the first moment of the test split")
    column: str | None = Field(default=None, description="a column that says train, validation or test")

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        by_time = self.validation is not None and self.test is not None
        if by_time == (self.column is not None):
            raise ValueError("give either 'validation' and 'test' (moments), or 'column'")
        if self.validation and self.test and self.validation >= self.test:
            raise ValueError("'validation' must be before 'test'")
        return self


class _Embedded(Strict):
    """What every id feature says about the table its rows live in."""

    values: Literal["int", "string"] = Field(default="int", description="what the ids are in the logs")
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")
    table: str | None = Field(default=None, description="share the table of this feature")
    encode: Literal["vocabulary", "hash"] = Field(
        default="vocabulary",
        description="vocabulary: a row for every value seen in training; hash: a fixed number of rows",
    )
    min_count: Positive = Field(default=1, description="vocabulary: rarer values are as unknown ones")
    rows: Annotated[int, Field(ge=2)] = Field(default=100_000, description="hash: rows of the table")
    dim: Annotated[int, Field(ge=4, multiple_of=4)] = Field(default=16, description="width of a row, a multiple of 4")


class Id(_Embedded):
    """One id: an attribute, or the hour or weekday (UTC) of the request."""

    kind: Literal["id"]
    make: Literal["column", "hour", "weekday"] = Field(default="column", description="hour, weekday: UTC")


class Ids(_Embedded):
    """A list of ids, oldest first, of which the last `last` are kept: a list column, or what the user did before."""

    kind: Literal["ids"]
    make: Literal["column", "history"] = Field(default="column", description="history: what the user did before")
    task: str | None = Field(default=None, description="history: where this event happened; none: all shown")
    last: Positive = Field(default=20, description="the newest so many are kept")


class Number(Strict):
    """One number: an attribute, or a count, a smoothed rate, or an age, as of just before the request."""

    kind: Literal["number"]
    make: Literal["column", "count", "rate", "age"] = Field(
        default="column", description="age: days since column's moment"
    )
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")
    per: str | None = Field(default=None, description="count, rate: the column whose past is counted")
    task: str | None = Field(default=None, description="count, rate: the task whose events are counted")
    prior: Annotated[float, Field(gt=0)] = Field(default=20.0, description="rate: weight of the base rate")
    scale: Literal["none", "standard", "log"] = Field(default="standard", description="log: log1p, then standard")


class Kept(Strict):
    """A column carried in the session table that the model never sees."""

    kind: Literal["kept"]
    values: Literal["int", "string", "float"] = Field(default="int", description="what the column holds")
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")


Feature = Annotated[Id | Ids | Number | Kept, Field(discriminator="kind")]
KINDS: dict[str, type[Strict]] = {"id": Id, "ids": Ids, "number": Number, "kept": Kept}


class Task(Strict):
    """One behaviour: how its label is read, what it presupposes, when its outcome is known, what it is worth."""

    label: str = Field(description="SQL expression over the columns of an impression, e.g. 'clicked AND dwell >= 30'")
    predict: Literal["event", "log", "ordinal", "quantile"] = Field(default="event", description="or how much there is")
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.5, description="quantile: which one")
    bins: Annotated[int, Field(ge=2)] = Field(default=32, description="ordinal: how many, of about equal mass")
    given: str | None = Field(default=None, description="the task without which this one cannot happen")
    space: Literal["all", "parent"] = Field(default="all", description="loss over all, or where the parent happened")
    window: Duration = Field(default=timedelta(0), description="the outcome is known this long after the impression")
    weight: Annotated[float, Field(ge=0)] = Field(default=1.0, description="weight of its loss")
    value: float = Field(default=1.0, description="worth of one event, or unit of a quantity, in the fused score")


class Train(Strict):
    """How the model learns."""

    batch: Positive = Field(default=4096, description="candidates per step, about")
    epochs: Positive = Field(default=10, description="passes over the training split, at most")
    lr: Annotated[float, Field(gt=0)] = Field(default=1e-3, description="step of AdamW, for everything but tables")
    table_lr: Annotated[float, Field(gt=0)] = Field(default=0.02, description="step of row-wise Adagrad, for tables")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="of AdamW")
    patience: Positive = Field(default=2, description="epochs without a better one before it stops")
    monitor: Literal["normalised_entropy", "auc"] = Field(
        default="normalised_entropy", description="on validation; of a quantity: its error, or concordance"
    )
    shuffle: Positive = Field(default=200_000, description="requests held in memory to be mixed")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: CUDA where there is one")


class Evaluate(Strict):
    """How grouped AUC is formed: inside which key, and how groups are weighted."""

    group: str | None = Field(default=None, description="a context feature; none: the request")
    weight: Literal["candidates", "equal"] = Field(default="candidates", description="of a group: its size, or 1")


class Serve(Strict):
    """Limits on what a stranger can send."""

    max_candidates: Positive = Field(default=2000, description="candidates in one request")
    max_body: Positive = Field(default=4 * 1024 * 1024, description="bytes of a request")
    body_seconds: Annotated[float, Field(gt=0)] = Field(default=5.0, description="for the whole request to arrive")
    in_flight: Positive = Field(default=64, description="requests worked on at once; more are told to come back")


class Spec(Strict):
    """The whole description of a ranking problem. Made by `load` or `parse`, which turn mistakes into SpecError."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="of the run and its bundle")]
    seed: int = Field(default=1, description="of everything random")
    source: dict[str, Any] = {}
    keys: Keys = Keys()
    requests: Requests = Requests()
    split: Split = Split(column="split")
    context: dict[str, Feature] = {}
    candidates: dict[str, Feature] = {}
    tasks: dict[str, Task]
    model: dict[str, Any] = {"name": "mmoe"}
    objective: dict[str, Any] = {"name": "esmm"}
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()

    def sides(self) -> Iterator[tuple[str, dict[str, Id | Ids | Number | Kept]]]:
        """`("context", its features)`, then `("candidates", its features)`."""
        yield "context", self.context
        yield "candidates", self.candidates

    def table_of(self, side: str, name: str) -> str:
        """The embedding table a feature looks its rows up in."""
        feature = dict(self.sides())[side][name]
        assert isinstance(feature, Id | Ids)
        return feature.table or name

    def tables(self) -> dict[str, Id | Ids]:
        """Every embedding table, by name, with the feature that declares it."""
        return {
            name: feature
            for _, features in self.sides()
            for name, feature in features.items()
            if isinstance(feature, Id | Ids) and feature.table is None
        }


def load(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML file, with `section.key=value` overrides applied before it is checked.

    Raises SpecError when the file is missing, is not TOML, or says something the schema does not know.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such spec") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a spec: {error}") from None
    return parse(text, where=str(path), overrides=overrides)


def parse(text: str, *, where: str = "spec", overrides: Sequence[str] = ()) -> Spec:
    """The spec in a TOML text; `where` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML: {error}") from None
    for override in overrides:
        _override(tree, override)
    from rec import mistakes  # it speaks of the tables above

    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {mistakes.explained(e)}" for e in error.errors())) from None
    for problem in mistakes.bad_names(spec):
        raise SpecError(f"{where}: {problem}")
    return spec


def dump(spec: Spec) -> str:
    """The spec as TOML again, with only what was set."""
    import tomli_w

    return tomli_w.dumps(_plain(spec.model_dump(exclude_unset=True, by_alias=True)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, timedelta):
        return f"{int(value.total_seconds())}s"
    return value


def _override(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise SpecError(f"--set {override}: expected section.key=value, such as train.lr=1e-3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise SpecError(f"--set {override}: {key} is a value, not a table")
    tree[keys[-1]] = value
