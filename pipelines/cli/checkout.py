"""What is there in a checkout of the repository and not in an installed package: the benchmarks."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import click


def bench() -> click.Command | None:
    """`multigate bench` from the folder beside our own packages; None where it is not there."""
    beside = Path(__file__).parents[2] / "benchmarks" / "main.py"
    found = importlib.util.find_spec("benchmarks") and importlib.util.find_spec("benchmarks.main")
    if not found or found.origin is None or Path(found.origin).resolve() != beside.resolve():
        return None
    return importlib.import_module("benchmarks.main").bench
