"""Verbs that use a bundle: batch scoring, the endpoint, one request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import BUNDLE, DATA, FOLDER, FORCE, JSON, SPLIT, THREADS, out

if TYPE_CHECKING:
    from rec.output_folder import Overwrite


@click.command()
@BUNDLE
@DATA
@out("SCORES", "the scores (Parquet)")
@SPLIT
@THREADS
@FORCE
@JSON
def score(
    bundle: Path, data: Path, out: Path, split: str, threads: int, *, overwrite: Overwrite, as_json: bool
) -> None:
    """Score session tables with a bundle.

    Completed parts are kept: after an interruption the same command resumes. SCORES/_SUCCESS is written last.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        result = commands.score(bundle, data, out, progress, split=split, threads=threads, overwrite=overwrite)
    if not result["scored"] and not as_json:  # that it was here already is said on stderr
        result = {
            name: value for name, value in result.items() if name not in ("seconds", "scored", "candidates_per_s")
        }
    output.pairs(result, as_json=as_json)


@click.command()
@BUNDLE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--config", type=FOLDER, metavar="SERVE.toml", help="Limits, timeouts and how it stops.")
@click.option("--admin-port", type=click.IntRange(1, 65535), help="Health, metrics and control on 127.0.0.1 too.")
@click.option("--token-file", type=FOLDER, metavar="FILE", help="For `promote`, `rollback` and `status`.")
@click.option("--drain", type=click.FloatRange(0), metavar="SECONDS", help="Between 503 of /readyz and the stop.")
@THREADS
def serve(bundle: Path, *, workers: int, config: Path | None, drain: float | None, **options: Any) -> None:
    """Answer POST /v1/rank over HTTP.

    Also /livez, /readyz and /metrics. On Ctrl-C or SIGTERM requests in flight are completed.
    """
    from pipelines.cli import control, progress_bars
    from serving.server import serve as app
    from serving.server.settings import read_settings

    settings = read_settings(config, drain_seconds=drain)
    token_file = options.pop("token_file")
    token = None if token_file is None else control.read_token(token_file)
    with progress_bars.progress() as progress:
        app.serve(bundle, workers=workers, progress=progress, settings=settings, token=token, **options)


@click.command()
@BUNDLE
@click.argument("request", type=FOLDER, default="-", metavar="[REQUEST.json]")
@THREADS
@JSON
def rank(bundle: Path, request: Path, threads: int, *, as_json: bool) -> None:
    """Rank one request from a file or stdin.

    The response equals that of the endpoint.
    """
    from pipelines.cli import commands, output

    body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    output.ranked(commands.rank(bundle, body, threads), as_json=as_json)
