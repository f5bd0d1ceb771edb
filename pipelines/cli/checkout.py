"""Verbs that need a checkout of the repository and are not in the installed package: benchmarks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click


def here() -> bool:
    """Whether `import benchmarks` finds the folder of this checkout, not another package of that name."""
    place = importlib.util.find_spec("benchmarks")
    beside = Path(__file__).resolve().parents[2] / "benchmarks" / "__init__.py"
    return place is not None and place.origin is not None and Path(place.origin).resolve() == beside


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
def bench() -> None:
    """Measure on this machine, from a checkout of the repository."""
    raise click.UsageError(
        "bench is no part of the installed package: clone the repository, run `make setup` in it, and then"
        " `.venv/bin/multigate bench` there"
    )
