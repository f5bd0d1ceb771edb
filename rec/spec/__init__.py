"""The spec: one TOML file, strictly typed. What other packages need of it; files in this folder import each other."""

from rec.spec.features import KINDS, AnyFeature, Id, Ids, Kept, Number, Vector, has_rows
from rec.spec.load import dump, load, parse
from rec.spec.spec import (
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
    Train,
)
from rec.spec.types import Duration, Few, Moment, Positive, Strict

__all__ = [
    "KINDS",
    "NAME",
    "AnyFeature",
    "Duration",
    "Evaluate",
    "Event",
    "Few",
    "Id",
    "Ids",
    "Kept",
    "Keys",
    "LogRules",
    "Moment",
    "Number",
    "Positive",
    "Requests",
    "Serve",
    "SessionRule",
    "Spec",
    "Split",
    "Strict",
    "Task",
    "Train",
    "Vector",
    "dump",
    "has_rows",
    "load",
    "parse",
]
