"""Verbs that build: session tables, a trained model, a bundle, or all of them in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import DATA, FORCE, JSON, MODEL, SET, SPEC, out

if TYPE_CHECKING:
    from rec.output_folder import Overwrite


@click.command()
@SPEC
@out("DATA", "session tables")
@SET
@click.option(
    "--engine",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Execution engine, auto, serial, threads, ray or package.module:Class; the output does not depend on it.",
)
@click.option("--workers", type=click.IntRange(1), help="How many at a time (as many as there are cores).")
@click.option("--snapshot", is_flag=True, help="Write the state that a store goes on from, too (DATA/state).")
@FORCE
@JSON
def features(spec: Path, out: Path, overrides: Sequence[str], *, as_json: bool, **how: Any) -> None:
    """Raw logs to leak-free session tables.

    Sweeps the logs in order of time, in bounded memory. Interrupted, the same command goes on where it stopped.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        card = commands.features(spec, overrides, out, progress, how=how)
    output.card(card, as_json=as_json)


@click.command()
@MODEL
@DATA
@out("BUNDLE", "the bundle")
@FORCE
@JSON
def export(model: Path, data: Path, out: Path, *, overwrite: Overwrite, as_json: bool) -> None:
    """A trained model to a bundle.

    Batch scoring and the endpoint load the same bundle. Refused unless torch and ONNX Runtime agree.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        manifest = commands.export(model, data, out, progress, overwrite=overwrite)
    output.manifest(manifest, as_json=as_json)


@click.command()
@SPEC
@out("DIR", "everything: data, model, bundle, scores, report")
@SET
@click.option(
    "--force", is_flag=True, help="Make again what the spec, the logs or a new version changed, and only that."
)
@JSON
def run(spec: Path, out: Path, overrides: Sequence[str], *, force: bool, as_json: bool) -> None:
    """All steps in order, skipping steps that are up to date.

    Features, train, export, score, evaluate. An interrupted step resumes.
    """
    from pipelines.cli import output, progress_bars
    from pipelines.cli import run as steps

    with progress_bars.progress() as progress:
        report = steps.run(spec, overrides, out, progress, force=force)
    output.metrics(report, as_json=as_json)
    if not as_json:
        click.echo(f"\nreport: {out / 'report.html'}", err=True)
