"""The verbs of `multigate bench` that measure batch scoring."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import FOLDER, JSON, repeats


@click.command("score")
@repeats(5)
@click.option("--page", type=FOLDER, metavar="FILE", help="Fill the tables of this page.")
@JSON
def bench_score(*, repeats: int, page: Path | None, as_json: bool) -> None:
    """Batch scoring beside ONNX Runtime alone on the same tensors: seconds, core seconds, and what each stage costs."""
    from benchmarks.quality import page as pages
    from benchmarks.speed import score
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = score.bench(repeats=repeats, progress=progress)
        if page is not None:
            pages.write(page, "score", score.page(result), progress)
    output.measured(result, as_json=as_json)


@click.command("score-kills")
@click.option("--kills", "count", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--procs", type=click.IntRange(1), default=2, show_default=True, help="Processes that score.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of victims and moments.")
@JSON
def bench_score_kills(*, count: int, procs: int, seed: int, as_json: bool) -> None:
    """Batch scoring killed at random moments and resumed, compared byte for byte with an unbroken run."""
    from benchmarks import score_kills
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = score_kills.bench(kills=count, procs=procs, seed=seed, progress=progress)
    output.measured(result, as_json=as_json)


VERBS = (bench_score, bench_score_kills)
