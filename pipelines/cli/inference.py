"""Verbs that use a bundle: batch scoring, the endpoint, one request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import BUNDLE, FOLDER, FORCE, JSON, SPLIT, THREADS, out


@click.command()
@BUNDLE
@click.argument("files", type=FOLDER, nargs=-1, metavar="[FILES]...")
@click.option("--data", type=FOLDER, metavar="DATA", help="Session tables, from `features`, in place of FILES.")
@out("SCORES", "the scores (Parquet)")
@SPLIT
@click.option(
    "--bad-rows",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With FILES: share of rows that may be put aside unscored.  [default: 0]",
)
@click.option("--procs", type=click.IntRange(1), metavar="N", help="Processes.  [default: as many as cores]")
@click.option(
    "--engine",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Execution engine: auto (processes), ray, or one of `features`; the output does not depend on it.",
)
@THREADS
@FORCE
@JSON
def score(bundle: Path, files: tuple[Path, ...], data: Path | None, out: Path, *, as_json: bool, **how: Any) -> None:
    """Score session tables (--data), or FILES of requests or rows, with a bundle.

    FILES are Parquet, Arrow or JSON lines, a request per row as POST /v1/rank takes it; or these or CSV, a candidate
    per row beside its context; or folders of them.
    Completed parts are kept: after an interruption the same command resumes. SCORES/_SUCCESS is written last.
    """
    from pipelines.cli import commands, output, progress_bars

    if (data is None) == (not files):
        raise click.UsageError("Expected either FILES or '--data'.")
    if data is not None and how["bad_rows"] is not None:
        raise click.UsageError("'--bad-rows' is for FILES; of session tables no row is put aside.")
    if data is None and _given("split"):
        raise click.UsageError("'--split' is for '--data'; of FILES every row is scored.")
    with progress_bars.progress() as progress:
        if data is None:
            how = {**how, "bad_rows": how["bad_rows"] or 0.0}
            del how["split"]
            result = commands.score_requests(bundle, files, out, progress, how=how)
        else:
            del how["bad_rows"]
            result = commands.score(bundle, data, out, progress, how=how)
    if not result["scored"] and not as_json:  # that it was here already is said on stderr
        result = {
            name: value for name, value in result.items() if name not in ("seconds", "scored", "candidates_per_s")
        }
    output.pairs(result, as_json=as_json)


def _given(option: str) -> bool:
    """Whether the command line has an option, rather than its default."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


@click.command()
@click.argument("bundle", type=FOLDER, required=False)
@click.option("--models", type=FOLDER, metavar="DIR", help="In place of BUNDLE: a folder of versions with labels.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--config", type=FOLDER, metavar="SERVE.toml", help="Limits and timeouts.")
@click.option("--admin-port", type=click.IntRange(1, 65535), help="Health, metrics and control on 127.0.0.1 too.")
@click.option("--token-file", type=FOLDER, metavar="FILE", help="For `promote`, `rollback` and `status`.")
@click.option("--drain", type=click.FloatRange(0), metavar="SECONDS", help="Between 503 of /readyz and the stop.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Of stderr: warnings, or all events as JSON.")
@THREADS
def serve(
    bundle: Path | None,
    models: Path | None,
    config: Path | None,
    drain: float | None,
    log_format: str | None,
    **options: Any,
) -> None:
    """Answer POST /v1/rank over HTTP, with a BUNDLE or with --models.

    Also /livez, /readyz and /metrics. On Ctrl-C or SIGTERM requests in flight are completed.
    """
    from pipelines.cli import control, progress_bars
    from serving.server import serve as app
    from serving.server.settings import read_settings

    path = bundle or models
    if path is None or (bundle and models):
        raise click.UsageError("Expected either BUNDLE or '--models'.")
    settings = read_settings(config, drain_seconds=drain, log_format=log_format)
    token_file = options.pop("token_file")
    token = None if token_file is None else control.read_token(token_file)
    with progress_bars.progress() as progress:
        app.serve(path, models=models is not None, progress=progress, settings=settings, token=token, **options)


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
