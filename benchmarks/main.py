"""`multigate bench`: the verbs that measure. Declared with click alone, as in pipelines/cli."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import CHECKOUT, endpoint_verbs, score_verbs
from pipelines.cli.options import FOLDER, JSON, SET, repeats, several


@click.group()
def bench() -> None:
    """Measure on this machine: speed (train, features, online, serve, score), quality, and recovery from kills."""


for verb in (*endpoint_verbs.VERBS, *score_verbs.VERBS):
    bench.add_command(verb)


@bench.command("train")
@several("--rows", (10_000, 1_000_000), "Rows per embedding table")
@several("--per-request", (1, 20, 100), "Candidates per request")
@click.option(
    "--models",
    metavar="all|NAME,...",
    help="These models side by side instead, as large as the MMoE, 20 candidates per request.",
)
@click.option("--whole", is_flag=True, help="Instead: epochs from files, steps and their floor, loader, processes.")
@click.option("--peers", metavar="PYTHON", help="With --whole: an interpreter with torch-rechub and deepctr-torch.")
@several("--procs", (1, 2), "With --whole: processes that train together")
@click.option("--page", type=FOLDER, metavar="FILE", help="With --whole: fill the tables of this page.")
@repeats(7)
@JSON
def bench_train(
    rows: Sequence[int],
    per_request: Sequence[int],
    models: str | None,
    repeats: int,
    *,
    as_json: bool,
    **whole: Any,
) -> None:
    """A training step of MMoE against a plain PyTorch one of the same sizes; or of several models."""
    from benchmarks.speed import models as bench_models
    from benchmarks.speed import train as trains
    from pipelines.cli import output, progress_bars

    if models is not None:
        names, size = bench_models.chosen(models), {"rows": bench_models.ROWS, "candidates": bench_models.CANDIDATES}
        with progress_bars.progress() as progress:
            result = bench_models.bench(names, **size, repeats=repeats, progress=progress)
        output.measured(result, as_json=as_json)
        return
    if whole.pop("whole") or whole["page"]:
        _whole(rows, per_request, repeats, as_json=as_json, **whole)
        return
    sizes = [(table, width) for table in rows for width in per_request]
    with progress_bars.progress() as progress:
        result = trains.bench(sizes=sizes, repeats=repeats, progress=progress)
    output.measured(result, as_json=as_json)


def _whole(
    rows: Sequence[int],
    per_request: Sequence[int],
    repeats: int,
    *,
    peers: str | None,
    procs: Sequence[int],
    page: Path | None,
    as_json: bool,
) -> None:
    from benchmarks.speed.training import bench as trainings
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = trainings.bench(rows, per_request, peers=peers, procs=procs, repeats=repeats, progress=progress)
        if page is not None:
            from benchmarks.quality import page as pages

            pages.write(page, "training", trainings.page(result), progress)
    output.measured(result, as_json=as_json)


@bench.command("features")
@click.option(
    "--events", default="1e6,1e7,1e8", show_default=True, metavar="N,N,...", help="Sizes of the shop, such as 1e6,1e7."
)
@click.option(
    "--data", type=FOLDER, metavar="DIR", help="Keep the shops here; otherwise they are drawn and removed again."
)
@click.option(
    "--results", type=FOLDER, metavar="DIR", help="Keep results in this folder, and skip sizes that it has already."
)
@click.option("--page", type=FOLDER, metavar="FILE", help="Fill the tables of this page.")
@click.option(
    "--beside",
    multiple=True,
    type=click.Choice(("polars", "duckdb", "pandas", "first", "more", "decayed", "shuffled")),
    help="Measure only these beside the pipeline; may be repeated. Otherwise all.",
)
@repeats(1)
@JSON
def bench_features(*, events: str, page: Path | None, beside: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Raw logs to session tables: speed and memory at growing sizes, beside an I/O floor, polars, DuckDB and pandas."""
    from benchmarks.speed import features as feature_benches
    from pipelines.cli import output, progress_bars

    sizes = _sizes(events)
    with progress_bars.progress() as progress:
        options["beside"] = beside or feature_benches.BESIDE
        result = feature_benches.bench(sizes=sizes, progress=progress, **options)
        if page is not None:
            from benchmarks import speed_page
            from benchmarks.quality import page as pages

            pages.write(page, "features", speed_page.page(result), progress)
    output.measured(result, as_json=as_json)


@bench.command("online")
@click.option("--users", type=click.IntRange(10), default=2000, show_default=True, help="Of the shop.")
@click.option("--items", type=click.IntRange(10), default=2000, show_default=True, help="Of the shop.")
@click.option("--requests", type=click.IntRange(1), default=1000, show_default=True, help="Compared with the tables.")
@several("--candidates", (50, 200, 500, 1000), "Candidates in the request")
@repeats(500)
@JSON
def bench_online(
    *, users: int, items: int, requests: int, candidates: Sequence[int], repeats: int, as_json: bool
) -> None:
    """The feature store: equality with offline rows, and latency."""
    from benchmarks.speed import store as stores
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = stores.bench(
            users=users, items=items, requests=requests, sizes=candidates, repeats=repeats, progress=progress
        )
    output.measured(result, as_json=as_json)


def _sizes(text: str) -> list[int]:
    """Whole numbers with commas between them, which may be written as 1e6."""
    try:
        sizes = [int(float(part)) for part in text.split(",")]
    except (ValueError, OverflowError):
        sizes = []
    if not sizes or min(sizes) < 1000:
        raise click.BadParameter(
            f"expected numbers of 1000 or more, such as 1e6,1e7, got {text!r}", param_hint="--events"
        )
    return sizes


@bench.command("kills")
@click.option("--kills", "count", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--procs", type=click.IntRange(2), default=2, show_default=True, help="Processes that train together.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of victims and moments.")
@click.option("--page", type=FOLDER, metavar="FILE", help="Fill the tables of this page.")
@JSON
def bench_kills(*, count: int, procs: int, seed: int, page: Path | None, as_json: bool) -> None:
    """Training killed at random moments and resumed, compared bit for bit with an unbroken run."""
    from benchmarks import kills
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = kills.of_a_shop(kills=count, procs=procs, seed=seed, progress=progress)
        if page is not None:
            from benchmarks.quality import page as pages

            pages.write(page, "kills", kills.page(result), progress)
    output.measured(result, as_json=as_json)


@bench.command("quality")
@click.argument("spec", type=FOLDER, required=False)
@SET
@click.option(
    "--suite", metavar="NAME", help="Instead of a spec: ablation, census, home, kuairand, lists, redraw or shop."
)
@click.option(
    "--seeds", type=click.IntRange(2), help="How many seeds, from 1 on (a spec: 3, a suite: as many as its page has)."
)
@click.option("--rows", metavar="A,B", default="", help="Only these rows of the suite.")
@click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Trainings at a time, one core each."
)
@click.option("--out", type=FOLDER, metavar="DIR", help="Where a suite keeps its trainings (runs/suites/NAME).")
@click.option("--page", type=FOLDER, metavar="FILE", help="Fill this page, even where the suite is not complete.")
@JSON
def bench_quality(
    *, spec: Path | None, overrides: Sequence[str], suite: str | None, seeds: int | None, as_json: bool, **options: Any
) -> None:
    """Test metrics over seeds: of a spec, or of all rows of a suite.

    An interrupted suite resumes. When all its rows are complete it fills its page, docs/measured/NAME.md.
    """
    from pipelines.cli import output, progress_bars

    if spec is not None and suite is None:
        if options["rows"] or options["out"] or options["page"]:
            raise click.UsageError("--rows, --out and --page belong to a --suite")
        from benchmarks.quality import seeds as quality

        with progress_bars.progress() as progress:
            result = quality.bench(spec, overrides, seeds=range(1, (seeds or 3) + 1), progress=progress)
        output.measured(result, as_json=as_json)
    elif suite is not None and spec is None:
        if overrides:
            raise click.UsageError("--set changes a SPEC; what a suite trains is its own")
        _suite(suite, seeds, as_json=as_json, **options)
    else:
        raise click.UsageError("give either a SPEC or --suite NAME")


def _suite(
    name: str, seeds: int | None, *, rows: str, jobs: int, out: Path | None, page: Path | None, as_json: bool
) -> None:
    """Run a suite; with exit code 4 where a training failed, after all that did not are shown."""
    from benchmarks import quality as suites
    from benchmarks.quality import runner
    from pipelines.cli import output, progress_bars
    from rec.errors import BundleError

    suite, chosen = suites.get(name), [row for row in rows.split(",") if row]
    out, where = out or Path("runs/suites") / name, page or CHECKOUT / "docs" / "measured" / f"{name}.md"
    with progress_bars.progress() as progress:
        result = runner.run(
            name,
            suite,
            out=out,
            rows=chosen,
            seeds=seeds,
            jobs=jobs,
            page=where,
            always=page is not None,
            progress=progress,
        )
    failed = result.pop("failed")
    output.measured(result, as_json=as_json)
    if failed:
        raise BundleError(failed)
