"""The command line. Declares every verb with click alone; a verb's modules are imported when it runs.

    exit 0 ok  1 our mistake  2 usage or spec  3 data  4 model or bundle  5 input or output  130 interrupted, state kept

stdout is data (a table, or JSON with --json); stderr is for people. `multigate --debug VERB ...` shows the traceback of
our mistakes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pipelines.cli import checkout
from pipelines.cli.demo import demo
from pipelines.cli.init import init
from pipelines.cli.options import DATA, FOLDER, JSON, RESUME, SET, SPEC, SPLIT, THREADS, out
from rec.memory import keep_polars_memory


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="multigate")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an unexpected error.")
def cli() -> None:
    """Multi-task ranking: raw logs in, calibrated click and conversion probabilities out, from one spec."""


@cli.command()
@SPEC
@SET
@JSON
def check(spec: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """Validate a spec and its logs.

    Types, ranges, leaks, label chain. Exit code 3 when something fails.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        findings = commands.check(spec, overrides, progress)
    output.findings(findings, as_json=as_json)
    raise SystemExit(0 if all(finding["passed"] for finding in findings) else 3)


@cli.command()
@SPEC
@out("the session tables")
@SET
@click.option(
    "--engine",
    type=click.Choice(["auto", "serial", "threads", "ray"]),
    default="auto",
    show_default=True,
    help="Who does the work; what is written is the same.",
)
@click.option("--workers", type=click.IntRange(1), help="How many at a time (as many as there are cores).")
@click.option("--partitions", type=click.IntRange(1), help="How many ranges of users (one per million impressions).")
@click.option("--snapshot", is_flag=True, help="Write the state that a store goes on from, too (DIR/state).")
@JSON
def features(spec: Path, out: Path, overrides: Sequence[str], *, as_json: bool, **how: Any) -> None:
    """Raw logs to leak-free session tables.

    Works by partition, in bounded memory, on all cores. Interrupted, the same command goes on where it stopped.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        card = commands.features(spec, overrides, out, progress, how=how)
    output.card(card, as_json=as_json)


@cli.command()
@SPEC
@DATA
@out("the run")
@SET
@RESUME
@JSON
def train(spec: Path, data: Path, out: Path, overrides: Sequence[str], *, resume: bool, as_json: bool) -> None:
    """Session tables to a trained model.

    An epoch that ended is never lost: --resume goes on after it.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        result = commands.train(spec, overrides, data, out, resume=resume, progress=progress)
    output.trained(result, as_json=as_json)


@cli.command()
@click.argument("model", type=FOLDER, metavar="RUN|BUNDLE")
@DATA
@SPLIT
@click.option(
    "--out", type=FOLDER, metavar="DIR", help="Where report.json and report.html go; a run keeps them itself."
)
@JSON
def evaluate(model: Path, data: Path, split: str, out: Path | None, *, as_json: bool) -> None:
    """Metrics per task of a run or a bundle.

    Writes report.json and report.html, for a run beside it.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        report = commands.evaluate(model, data, split, out, progress)
    output.metrics(report, as_json=as_json)


@cli.command()
@click.argument("run", type=FOLDER)
@DATA
@out("the bundle")
@JSON
def export(run: Path, data: Path, out: Path, *, as_json: bool) -> None:
    """A trained run to a bundle.

    Batch scoring and the endpoint load the same bundle. Refused unless torch and ONNX Runtime agree.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        manifest = commands.export(run, data, out, progress)
    output.manifest(manifest, as_json=as_json)


@cli.command()
@click.argument("bundle", type=FOLDER)
@DATA
@out("the scores (Parquet)")
@SPLIT
@THREADS
@RESUME
@JSON
def score(bundle: Path, data: Path, out: Path, split: str, threads: int, *, resume: bool, as_json: bool) -> None:
    """Score session tables with a bundle."""
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        result = commands.score(bundle, data, out, split=split, threads=threads, resume=resume, progress=progress)
    output.pairs(result, as_json=as_json)


@cli.command()
@click.argument("bundle", type=FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@THREADS
def serve(bundle: Path, host: str, port: int, workers: int, threads: int) -> None:
    """Answer POST /v1/rank over HTTP.

    /livez, /readyz and /metrics are beside it. Ctrl-C or SIGTERM lets requests in flight end.
    """
    from pipelines.cli import progress_bars
    from serving.server import serve as app

    with progress_bars.progress() as progress:
        app.serve(bundle, host=host, port=port, workers=workers, threads=threads, progress=progress)


@cli.command()
@click.argument("bundle", type=FOLDER)
@click.argument("request", type=FOLDER, default="-", metavar="[REQUEST.json]")
@THREADS
@JSON
def rank(bundle: Path, request: Path, threads: int, *, as_json: bool) -> None:
    """Rank one request from a file or stdin, as the endpoint would."""
    from pipelines.cli import commands, output

    body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    output.ranked(commands.rank(bundle, body, threads), as_json=as_json)


@cli.command()
@SPEC
@out("everything: data, model, bundle, scores, report")
@SET
@JSON
def run(spec: Path, out: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """All steps in order, skipping what is fresh.

    Check, features, train, export, score, evaluate. A step that was interrupted goes on where it stopped.
    """
    from pipelines.cli import output, progress_bars
    from pipelines.cli import run as workspace

    with progress_bars.progress() as progress:
        report = workspace.run(spec, overrides, out, progress)
    output.metrics(report, as_json=as_json)


@cli.command()
@JSON
def models(*, as_json: bool) -> None:
    """What can be put in [model] and [objective] name, one line each."""
    from pipelines.cli import output
    from rec import models as bodies
    from rec import objectives

    output.groups({"models": bodies.names(), "objectives": objectives.names()}, as_json=as_json)


@cli.command()
def schema() -> None:
    """The JSON Schema of a spec, for editors."""
    from pipelines.cli import json_schema as schemas
    from pipelines.cli import output

    output.pairs(schemas.schema(), as_json=True)


@cli.command()
@JSON
def doctor(*, as_json: bool) -> None:
    """Versions, devices, what is missing and how to get it; exit code 1 when something is."""
    from pipelines.cli import doctor as doctors
    from pipelines.cli import output

    findings = doctors.examine()
    output.findings(findings, as_json=as_json)
    raise SystemExit(0 if all(finding["passed"] for finding in findings) else 1)


if (bench := checkout.bench()) is not None:
    cli.add_command(bench)
cli.add_command(init)
cli.add_command(demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and leave with its exit code; the entry point of `multigate`."""
    keep_polars_memory()
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != "--debug"]
    guarded(lambda: cli.main(words, prog_name="multigate", standalone_mode=False), debug=words != given)


def guarded(work: Callable[[], object], *, debug: bool = False) -> None:
    """Do work and leave with its exit code; an error becomes a line on stderr, or a traceback with `debug`."""
    if not debug:
        warnings.simplefilter("ignore")  # what libraries tell their developers is not for ours
    try:
        left = work()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            raise
        raise SystemExit(_exit_code(error)) from None
    # click hands back the code of --help and of usage shown instead of raising it
    raise SystemExit(left if isinstance(left, int) else 0)


def _exit_code(error: BaseException) -> int:
    """Tell a person what went wrong, and the machine which kind of thing it was."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.ClickException):
        error.show()
        return 5 if isinstance(error, click.FileError) else 2
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo(
            "multigate: interrupted; what was finished is kept, and the same command goes on from there", err=True
        )
        return 130
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # whoever read us has gone; nothing is left to flush
        return 5
    from rec.errors import BundleError, DataError, SpecError

    click.echo(f"multigate: {_said(error)}", err=True)
    if isinstance(error, SpecError | DataError | BundleError):
        return error.exit_code
    return 5 if isinstance(error, OSError) else 1


def _said(error: BaseException) -> str:
    from pipelines.cli.installation import explain
    from rec.errors import BundleError, DataError, InstallationError, SpecError

    if isinstance(error, SpecError | DataError | BundleError | InstallationError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (sentence := explain(error)):
        return sentence
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return (
        f"this is our mistake, not yours: {type(error).__name__}: {error}\n"
        "multigate: the same command as `multigate --debug ...` prints the traceback that a bug report needs"
    )


if __name__ == "__main__":
    main()
