"""Verbs that evaluate a trained model or a bundle; `bench` is in benchmarks/main.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import DATA, FOLDER, FORCE, JSON, SPLIT

if TYPE_CHECKING:
    from rec.output_folder import Overwrite


@click.command()
@click.argument("model", type=FOLDER, metavar="MODEL|BUNDLE")
@DATA
@SPLIT
@click.option(
    "--out", type=FOLDER, metavar="DIR", help="Where report.json and report.html go; of a MODEL, otherwise into it."
)
@FORCE
@JSON
def evaluate(model: Path, data: Path, split: str, out: Path | None, *, overwrite: Overwrite, as_json: bool) -> None:
    """Metrics per task of a trained model or a bundle.

    Writes report.json and report.html.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        report = commands.evaluate(model, data, split, out, progress, overwrite=overwrite)
    output.metrics(report, as_json=as_json)
    folder = out or (None if commands.is_bundle(model) else model)
    if folder is not None and not as_json:
        click.echo(f"\nreport: {folder / 'report.html'}", err=True)
