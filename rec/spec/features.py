"""The feature kinds of a spec: ids, lists of ids, numbers, vectors, and columns carried along (`kept`).

item_id  = { kind = "id", dim = 16 }
clicked  = { kind = "ids", make = "history", task = "click", table = "item_id", last = 50 }
price    = { kind = "number", scale = "quantile", buckets = 32 }
taste    = { kind = "number", make = "rate", per = ["user_id", "category"], task = "click", windows = ["1d", "ever"] }
picture  = { kind = "vector", size = 64 }
position = { kind = "kept" }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import Field

from rec.spec.types import DURATION, MANY, Duration, Positive, Strict

EVER = "ever"


class _Embedded(Strict):
    """Settings of the embedding table of an id feature."""

    values: Literal["int", "string"] = Field(default="int", description="what the ids are in the logs")
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")
    table: str | None = Field(default=None, description="share the table of this feature")
    encode: Literal["vocabulary", "hash"] = Field(
        default="vocabulary",
        description="vocabulary: a row for every value seen in training; hash: a fixed number of rows",
    )
    min_count: Positive = Field(default=1, description="vocabulary: rarer values are as unknown ones")
    rows: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(
        default=100_000, description="hash, cross: rows of the table"
    )
    dim: Annotated[int, Field(ge=4, le=4096, multiple_of=4)] = Field(
        default=16, description="width of a row, a multiple of 4"
    )
    pretrained: str | None = Field(
        default=None, description="vocabulary: a Parquet or Arrow file of ids and the vectors their rows start from"
    )
    id_dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="share of its ids that are made unknown in training; none: train.id_dropout"
    )
    l2: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="L2 penalty on the rows it looks up in training; none: train.table_l2"
    )


class Id(_Embedded):
    """One id: an attribute, the hour or weekday (UTC) of the request, or two or more ids crossed to one."""

    kind: Literal["id"]
    make: Literal["column", "hour", "weekday", "cross"] = Field(default="column", description="hour, weekday: UTC")
    of: list[str] = Field(default=[], description="cross: the id features that are crossed; always hashed")
    bias: bool = Field(
        default=False,
        description="read by a shallow tower in training only, such as the position (docs/models/bias.md)",
    )


class Ids(_Embedded):
    """A list of ids, oldest first, of which the last `last` are kept: a list column, words, or what the user did."""

    kind: Literal["ids"]
    make: Literal["column", "tokens", "history", "gaps"] = Field(
        default="column",
        description="tokens: the words of a text; history: what the user did before; gaps: how long before",
    )
    task: str | None = Field(default=None, description="history, gaps: where this event happened; none: all shown")
    split: str | None = Field(
        default=None, description='what separates the ids in a text column, such as "|"; none: only [a, b] is a list'
    )
    buckets: bool = Field(default=False, description="history: of a number; its id is 1 + floor(log2(1 + number))")
    last: Annotated[int, Field(ge=1, le=MANY)] = Field(default=20, description="the newest so many are kept")


class Number(Strict):
    """One number: an attribute; a point-in-time count, rate or time since the last event; one among its neighbours."""

    kind: Literal["number"]
    make: Literal[
        "column",
        "count",
        "rate",
        "mean",
        "sum",
        "last",
        "expected",
        "coec",
        "since",
        "since_first",
        "age",
        "session_requests",
        "session_seconds",
        "rank",
        "gap",
        "share",
        "zscore",
        "best",
        "size",
    ] = Field(
        default="column",
        description="age: days since column's timestamp; since, since_first: days since the last or the first event; "
        "mean, sum, last: of column, where the event happened; "
        "expected: expected clicks, the sum of 1 / size of the requests of impressions; coec: clicks over expected "
        "clicks; session_...: of the session so far; rank, gap, share, zscore, best: of a number compared with the "
        "request's other candidates; size: how many candidates the request has",
    )
    of: str | list[str] | None = Field(
        default=None,
        description="rank, gap, share, zscore, best: the number feature that is compared; of several, each",
    )
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")
    per: str | list[str] | None = Field(
        default=None,
        description="count to since_first: the key, a column or several together, whose past impressions count",
    )
    matching: str | list[str] | None = Field(
        default=None,
        description="count to since_first: the column, or columns, of past impressions that must equal per; "
        "none: the same",
    )
    task: str | None = Field(default=None, description="count to since_first: the event; none: being shown")
    given: str | None = Field(default=None, description="rate: of those where this event happened; none: of all shown")
    window: Duration | None = Field(default=None, description="count to coec: what became known this long before")
    half_life: Duration | None = Field(
        default=None, description="count, rate: what became known this long before counts half; none: all the same"
    )
    windows: list[str] = Field(default=[], description='several at once, such as ["1d", "ever"]: a number for each')
    prior: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="rate, coec: smoothing, the weight of the base rate in impressions"
    )
    scale: Literal["none", "standard", "log", "quantile"] = Field(
        default="standard",
        description="standard: to mean 0, deviation 1; log: log1p, then standard; quantile: buckets, an embedding each",
    )
    buckets: Annotated[int, Field(ge=2, le=MANY)] = Field(default=16, description="quantile: how many")
    dim: Annotated[int, Field(ge=4, le=4096, multiple_of=4)] = Field(default=8, description="quantile: width of a row")
    l2: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="quantile: L2 penalty on the rows it looks up in training; none: train.table_l2"
    )
    bias: bool = Field(
        default=False,
        description="read by a shallow tower in training only, such as the position (docs/models/bias.md)",
    )


class Vector(Strict):
    """A list of `size` numbers, such as a pretrained embedding of a picture, passed to the model unchanged."""

    kind: Literal["vector"]
    size: Annotated[int, Field(ge=1, le=MANY)] = Field(description="how many numbers")
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")


class Kept(Strict):
    """A column carried in the session table that the model never sees."""

    kind: Literal["kept"]
    values: Literal["int", "string", "float"] = Field(default="int", description="what the column holds")
    column: str | None = Field(default=None, description="the column it is read from; none: the feature's own name")


AnyFeature = Id | Ids | Number | Vector | Kept
Feature = Annotated[AnyFeature, Field(discriminator="kind")]
KINDS: dict[str, type[Strict]] = {"id": Id, "ids": Ids, "number": Number, "vector": Vector, "kept": Kept}
CLOCKS = ("hour", "weekday")  # what an id may be made of from the timestamp alone
COMPARED = ("rank", "gap", "share", "zscore", "best")  # of a number, among the candidates of its request
IN_REQUEST = (*COMPARED, "size")  # what a number may be made of from the request alone; not stored
MOMENTS = ("since", "since_first")  # the time of an event of a key
VALUED = ("mean", "sum", "last")  # of a column where an event of a key happened
EXPECTED = ("expected", "coec")  # expected clicks of a key, and clicks over these
WINDOWED = ("count", "rate", *VALUED, *EXPECTED)
PAST = (*WINDOWED, *MOMENTS)  # what a number may be made of from the past of a key


def keys_of(feature: Number) -> tuple[str, ...]:
    """The key columns that what is made of the past is grouped by."""
    return (feature.per,) if isinstance(feature.per, str) else tuple(feature.per or ())


def matching_of(feature: Number) -> tuple[str, ...]:
    """The columns of past impressions that are compared with the key columns: most often the same."""
    matching = (feature.matching,) if isinstance(feature.matching, str) else tuple(feature.matching or ())
    return matching or keys_of(feature)


def value_of(feature: AnyFeature) -> str | None:
    """The column whose past values a mean, a sum or a last one is of; None for other features."""
    return feature.column if isinstance(feature, Number) and feature.make in VALUED else None


def has_rows(feature: AnyFeature) -> TypeGuard[Id | Ids | Number]:
    """Whether a feature is looked up in an embedding table: every id, and bucketed numbers."""
    return isinstance(feature, Id | Ids) or (isinstance(feature, Number) and feature.scale == "quantile")


def is_key(feature: AnyFeature) -> bool:
    """Whether a feature is a stored int or string, by which rows can be grouped."""
    return (isinstance(feature, Id) and feature.make == "column") or (
        isinstance(feature, Kept) and feature.values != "float"
    )


def is_bias(feature: AnyFeature) -> bool:
    """Whether a feature is read by the tower of biases alone (rec/modules/bias_tower.py)."""
    return isinstance(feature, Id | Number) and feature.bias


def expanded(features: Mapping[str, Any]) -> dict[str, Any]:
    """Features with each that has several windows, or is of several numbers, expanded in place to one for each.

    A feature set to `false` is removed, so that `--set context.age=false` removes it.

    >>> expanded({"sold": {"make": "count", "windows": ["1d", "ever"]}})
    {'sold_1d': {'make': 'count', 'window': '1d'}, 'sold_ever': {'make': 'count'}}
    >>> expanded({"rank": {"make": "rank", "of": ["price", "sold"]}})
    {'rank_price': {'make': 'rank', 'of': 'price'}, 'rank_sold': {'make': 'rank', 'of': 'sold'}}
    """
    expanded_features: dict[str, Any] = {}
    for name, feature in features.items():
        if feature is False:
            continue
        windows, numbers = _windows(feature), _numbers(feature)
        names = [f"{name}_{part}" for part in windows or numbers]
        # an invalid feature is left as written, and refused by validation
        taken = {*features, *expanded_features}
        if not names or len({*names, *taken}) < len(names) + len(taken):
            expanded_features[name] = feature
            continue
        if numbers:
            expanded_features |= {key: {**feature, "of": of} for key, of in zip(names, numbers, strict=True)}
            continue
        rest = {key: value for key, value in feature.items() if key != "windows"}
        for feature_name, window in zip(names, windows, strict=True):
            expanded_features[feature_name] = rest if window == EVER else {**rest, "window": window}
    return expanded_features


def _numbers(feature: object) -> list[str]:
    """The numbers of which a feature is one each; empty if it is of one, or of invalid ones."""
    if not isinstance(feature, Mapping) or feature.get("make") not in COMPARED:
        return []
    of = feature.get("of")
    return of if isinstance(of, list) and all(isinstance(name, str) for name in of) else []


def _windows(feature: object) -> list[str]:
    """The windows to expand a feature by; empty if it has none, or invalid ones."""
    if not isinstance(feature, Mapping) or feature.get("make") not in WINDOWED:
        return []
    if "window" in feature or "half_life" in feature:
        return []
    windows = feature.get("windows")
    if not isinstance(windows, list) or not all(isinstance(window, str) for window in windows):
        return []
    return windows if all(window == EVER or DURATION.fullmatch(window) for window in windows) else []
