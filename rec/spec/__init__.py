"""The spec: one TOML file, strictly typed. Exports what other packages use."""

from rec.spec.features import KINDS, AnyFeature, Id, Ids, Kept, Number, Vector, has_rows
from rec.spec.load import dump, load, parse
from rec.spec.spec import (
    BUNDLE_NAME,
    NAME,
    Evaluate,
    Event,
    Keys,
    LogRules,
    Requests,
    Serve,
    SessionRule,
    Spec,
    Split,
    Task,
)
from rec.spec.training import Checkpoints, Sharding, Train, Watching
from rec.spec.types import Duration, Few, Positive, Strict, Timestamp

__all__ = [
    "BUNDLE_NAME",
    "KINDS",
    "NAME",
    "AnyFeature",
    "Checkpoints",
    "Duration",
    "Evaluate",
    "Event",
    "Few",
    "Id",
    "Ids",
    "Kept",
    "Keys",
    "LogRules",
    "Number",
    "Positive",
    "Requests",
    "Serve",
    "SessionRule",
    "Sharding",
    "Spec",
    "Split",
    "Strict",
    "Task",
    "Timestamp",
    "Train",
    "Vector",
    "Watching",
    "dump",
    "has_rows",
    "load",
    "parse",
]
