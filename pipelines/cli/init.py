"""`multigate init`: a look at the first rows of some logs, written down as a spec to be read and corrected.

Only click is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import FOLDER, JSON

_ROLES = {
    "user": "the user",
    "item": "the item that is shown",
    "time": "the moment",
    "request": "the request's id",
    "label": "an outcome of 0 and 1",
}


def _said(command: Any) -> Any:
    """An option for every role of a column that a person may name."""
    for role, what in reversed(_ROLES.items()):
        command = click.option(f"--{role}", metavar="COLUMN", help=f"Which column is {what}.")(command)
    return command


@click.command()
@click.argument("logs", nargs=-1, required=True, type=FOLDER, metavar="LOGS...")
@click.option("--out", type=FOLDER, required=True, metavar="SPEC.toml", help="Where to write the spec.")
@click.option("--force", is_flag=True, help="Write over a spec that exists.")
@_said
@JSON
def init(logs: Sequence[Path], out: Path, *, force: bool, as_json: bool, **said: str | None) -> None:
    """Write a commented spec after a look at the logs.

    LOGS are files, or folders of them: Parquet, CSV, TSV or Arrow. What is written is a guess to be corrected, and
    `multigate check` says whether it fits.
    """
    from pipelines.cli import output
    from pipelines.init.draft import write

    output.groups(write(logs, out, said={k: v for k, v in said.items() if v is not None}, force=force), as_json=as_json)
    click.echo(f"\nwritten to {out}; next: multigate check {out}", err=True)
