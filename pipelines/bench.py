"""`multigate bench`: the verbs that measure. Declared with click alone, as in cli.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipelines.options import FOLDER, JSON, SET, SPEC, repeats, several


@click.group()
def bench() -> None:
    """Measure on this machine: speed (train, serve), and quality over seeds."""


@bench.command("train")
@several("--rows", (10_000, 1_000_000), "Rows per embedding table")
@several("--per-request", (1, 20, 100), "Candidates per request")
@repeats(7)
@JSON
def bench_train(rows: Sequence[int], per_request: Sequence[int], repeats: int, *, as_json: bool) -> None:
    """A training step of our MMoE against a plain one of the same sizes."""
    from pipelines import bench_train as trains
    from pipelines import show, terminal

    sizes = [(table, width) for table in rows for width in per_request]
    with terminal.progress() as progress:
        result = trains.bench(sizes=sizes, repeats=repeats, progress=progress)
    show.measured(result, as_json=as_json)


@bench.command("serve")
@click.option("--bundle", type=FOLDER, metavar="DIR", help="The bundle to measure; otherwise one is made for a moment.")
@several("--candidates", (50, 200, 500, 1000), "Candidates in the request")
@repeats(200)
@JSON
def bench_serve(bundle: Path | None, candidates: Sequence[int], repeats: int, *, as_json: bool) -> None:
    """One request at three depths: the model's run, the scorer, the whole of HTTP."""
    from pipelines import bench_serve as serves
    from pipelines import show, terminal

    with terminal.progress() as progress:
        result = serves.bench(bundle=bundle, sizes=candidates, repeats=repeats, progress=progress)
    show.measured(result, as_json=as_json)


@bench.command("quality")
@SPEC
@SET
@click.option("--seeds", type=click.IntRange(2), default=3, show_default=True, help="How many; 1, 2, ...")
@JSON
def bench_quality(spec: Path, overrides: Sequence[str], seeds: int, *, as_json: bool) -> None:
    """Test metrics of a spec as mean and spread over seeds."""
    from pipelines import bench_quality as quality
    from pipelines import show, terminal

    with terminal.progress() as progress:
        result = quality.bench(spec, overrides, seeds=range(1, seeds + 1), progress=progress)
    show.measured(result, as_json=as_json)
