"""`multigate init`: a spec drafted from the first rows of logs, for the user to review.

Only click is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import ADDRESS, FOLDER, JSON

_ROLES = {"user": "the user", "item": "the shown item", "time": "the timestamp", "request": "the request id"}


def _role_options(command: Any) -> Any:
    """One option per role of a column."""
    for role, what in reversed(_ROLES.items()):
        command = click.option(f"--{role}", metavar="COLUMN", help=f"The column of {what}.")(command)
    return command


@click.command()
@click.argument("logs", nargs=-1, required=True, type=ADDRESS, metavar="LOGS...")
@click.option("--out", type=FOLDER, required=True, metavar="SPEC.toml", help="Where to write the spec.")
@click.option("--force", is_flag=True, help="Write over a spec that exists.")
@_role_options
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="COLUMN",
    help="A column of 0 and 1 to predict; several are several tasks.",
)
@JSON
def init(
    logs: Sequence[str], out: Path, *, force: bool, labels: Sequence[str], as_json: bool, **roles: str | None
) -> None:
    """Draft a commented spec from log files.

    LOGS are files, folders of them or globs (Parquet, CSV, TSV, Arrow, JSON lines), or addresses: s3://bucket/*.csv,
    delta:lake/clicks, 'duckdb:shop.duckdb?table=clicks'. The draft is a guess to be corrected, and `multigate check`
    says whether it fits. On a terminal it asks about columns that may be outcomes; elsewhere they are left out, with a
    comment.
    """
    from pipelines.cli import output
    from pipelines.init.draft import write

    named = {role: column for role, column in roles.items() if column is not None}
    known = _known if sys.stdin.isatty() and sys.stderr.isatty() and not as_json else None
    notes = write(logs, out, roles=named, labels=labels, force=force, known=known, reading=_shown)
    output.groups(notes, as_json=as_json)
    click.echo(f"\nwritten to {out}; next: multigate check {out}", err=True)


@contextmanager
def _shown() -> Iterator[None]:
    """What takes long is shown until questions are asked."""
    from features.logs import copies
    from pipelines.cli import progress_bars

    with progress_bars.progress() as progress, copies.shown_by(progress):
        yield


def _known(column: str, why: str) -> bool:
    return click.confirm(f"{column}: {why}. Was it known before the impression?", default=False, err=True)
