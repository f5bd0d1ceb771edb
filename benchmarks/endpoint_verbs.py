"""The verbs of `multigate bench` that measure the endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import DATA, FOLDER, JSON, repeats, several
from rec.progress import Progress

SHARE = click.FloatRange(0, 100, min_open=True)
_PAGE = click.option("--page", type=FOLDER, metavar="FILE", help="Fill the tables of this page.")


def _shares(_: click.Context, option: click.Parameter, text: str) -> list[float]:
    """Numbers with commas between them."""
    return [SHARE(part, option) for part in text.split(",")]


@click.command("serve")
@click.option("--bundle", type=FOLDER, metavar="DIR", help="The bundle to measure; otherwise one is made for a moment.")
@click.option("--self-attention", is_flag=True, help="Measure instead what self-attention adds to a run of the graph.")
@several("--candidates", (50, 200, 500, 1000), "Candidates in the request")
@repeats(200)
@JSON
def bench_serve(
    *, bundle: Path | None, self_attention: bool, candidates: Sequence[int], repeats: int, as_json: bool
) -> None:
    """Latency of a request at three depths: the model's run, the scorer, HTTP."""
    from benchmarks.speed import attention
    from benchmarks.speed import serve as serves
    from pipelines.cli import output, progress_bars

    if bundle and self_attention:
        raise click.UsageError("--self-attention makes its own graphs: it cannot be used with --bundle")
    with progress_bars.progress() as progress:
        if self_attention:
            result = attention.bench(sizes=candidates, repeats=repeats, progress=progress)
        else:
            result = serves.bench(bundle=bundle, sizes=candidates, repeats=repeats, progress=progress)
    output.measured(result, as_json=as_json)


@click.command("fuzz")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is served.")
@click.option("--inputs", type=click.IntRange(1), default=100_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the inputs.")
@JSON
def bench_fuzz(*, bundle: Path, inputs: int, seed: int, as_json: bool) -> None:
    """Hostile bytes, bodies, heads and connections over HTTP: no 500, no death, no growth."""
    from benchmarks import fuzz
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = fuzz.bench(bundle=bundle, inputs=inputs, seed=seed, progress=progress)
    output.pairs(result, as_json=as_json)


@click.command("mutations")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is changed.")
@DATA
@click.option("--inputs", type=click.IntRange(1), default=10_000, show_default=True, help="How many of each kind.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first; the others follow.")
@JSON
def bench_mutations(*, bundle: Path, data: Path, inputs: int, seed: int, as_json: bool) -> None:
    """Bundles and parts of session tables with bytes changed: each is refused or opened, no crash, no hang."""
    from benchmarks import mutations
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = mutations.bench(bundle=bundle, data=data, inputs=inputs, seed=seed, progress=progress)
    output.pairs(result, as_json=as_json)


@click.command("swaps")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is served.")
@click.option("--times", type=click.IntRange(1), default=100, show_default=True, help="Swaps in a row.")
@click.option("--rate", type=SHARE, default=0.8, show_default=True, help="Of requests, as a share of the peak.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments they are sent.")
@_PAGE
@JSON
def bench_swaps(*, bundle: Path, times: int, rate: float, seed: int, page: Path | None, as_json: bool) -> None:
    """Another bundle taken into service again and again under load: no failed request, no growth."""
    from benchmarks import swaps
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = swaps.bench(bundle=bundle, times=times, rate=rate, seed=seed, progress=progress)
        _fill(page, "swaps", result, progress)
    output.pairs(result, as_json=as_json)


@click.command("load")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is served.")
@click.option(
    "--rates",
    default="0.5,0.8,2,5",
    show_default=True,
    metavar="X,X,...",
    callback=_shares,
    help="Of requests, as shares of the peak.",
)
@click.option("--seconds", type=click.FloatRange(1), default=20, show_default=True, help="At each rate.")
@click.option(
    "--connections",
    type=click.Choice(["kept", "new"]),
    multiple=True,
    default=("kept", "new"),
    show_default=True,
    help="Kept from request to request, or new for each.",
)
@click.option("--candidates", type=click.IntRange(1), default=100, show_default=True, help="In a request.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Of the server.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments requests are sent.")
@_PAGE
@JSON
def bench_load(*, bundle: Path, rates: Sequence[float], page: Path | None, as_json: bool, **options: Any) -> None:
    """Requests from intended send times, at shares of the peak: goodput, latency, refusals, probes, memory."""
    from benchmarks import load
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = load.bench(bundle=bundle, rates=rates, progress=progress, **options)
        _fill(page, "load", result, progress)
    output.measured(result, as_json=as_json)


@click.command("crowd")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is served.")
@click.option("--idle", type=click.IntRange(0), default=5000, show_default=True, help="Idle connections.")
@click.option("--heads", type=click.IntRange(0), default=1000, show_default=True, help="Heads, a byte a second.")
@click.option("--bodies", type=click.IntRange(0), default=1000, show_default=True, help="Bodies, a byte a second.")
@click.option("--unread", type=click.IntRange(0), default=200, show_default=True, help="Clients that do not read.")
@click.option("--rate", type=SHARE, default=0.5, show_default=True, help="Of requests, as a share of the peak.")
@click.option("--seconds", type=click.FloatRange(1), default=20, show_default=True, help="Of each of three parts.")
@click.option("--candidates", type=click.IntRange(1), default=100, show_default=True, help="In a request.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments requests are sent.")
@_PAGE
@JSON
def bench_crowd(
    *, idle: int, heads: int, bodies: int, unread: int, page: Path | None, as_json: bool, **options: Any
) -> None:
    """Who is served while strangers hold thousands of connections: latency, memory, descriptors."""
    from benchmarks import crowd
    from pipelines.cli import output, progress_bars

    strangers = {"idle": idle, "slow heads": heads, "slow bodies": bodies, "unread": unread}
    with progress_bars.progress() as progress:
        result = crowd.bench(crowd=strangers, progress=progress, **options)
        _fill(page, "crowd", result, progress)
    output.measured(result, as_json=as_json)


@click.command("peers")
@click.option("--bundle", type=FOLDER, required=True, metavar="DIR", help="The bundle that is served.")
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="PYTHON",
    help="With onnxruntime and other servers; several times.",
)
@click.option("--candidates", type=click.IntRange(1), default=100, show_default=True, help="In a request.")
@several("--workers", (1, 2), "Worker processes")
@click.option("--seconds", type=click.FloatRange(1), default=5, show_default=True, help="At each rate.")
@click.option("--bound-ms", type=click.FloatRange(0, min_open=True), default=50, show_default=True, help="On the p99.")
@_PAGE
@JSON
def bench_peers(*, bundle: Path, page: Path | None, as_json: bool, **options: Any) -> None:
    """The endpoint beside FastAPI, BentoML, MLServer and Ray Serve around the same ONNX file."""
    from benchmarks import peers
    from pipelines.cli import output, progress_bars

    with progress_bars.progress() as progress:
        result = peers.bench(bundle=bundle, progress=progress, **options)
        _fill(page, "peers", result, progress)
    output.measured(result, as_json=as_json)


def _fill(page: Path | None, name: str, result: Mapping[str, Any], progress: Progress) -> None:
    from benchmarks import endpoint_page
    from benchmarks.quality import page as pages

    if page is not None:
        pages.write(page, name, endpoint_page.page(result), progress)


VERBS = (bench_serve, bench_fuzz, bench_mutations, bench_swaps, bench_load, bench_crowd, bench_peers)
