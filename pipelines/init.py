"""`multigate init`: a look at the first rows of some logs, written down as a spec to be read and corrected.

Only click is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipelines.options import FOLDER, JSON

_FORMS = (".parquet", ".csv", ".tsv", ".csv.gz", ".arrow", ".feather")
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
    from pipelines import show

    show.groups(write(logs, out, said={k: v for k, v in said.items() if v is not None}, force=force), as_json=as_json)
    click.echo(f"\nwritten to {out}; next: multigate check {out}", err=True)


def write(logs: Sequence[Path], out: Path, *, said: Mapping[str, str], force: bool) -> dict[str, dict[str, str]]:
    """Write a spec for some logs; what was taken for what, and what to look at.

    `said` are roles of columns that a person named: user, item, time, request, label. Raises SpecError where `out`
    exists and `force` is not given, DataError where the logs hold nothing that a ranking could be learnt from.
    """
    from features.drafts import guess, shape
    from pipelines import draft
    from rec import spec as specs
    from rec.errors import DataError, SpecError, nearest
    from rec.files import write_bytes

    if out.exists() and not force:
        raise SpecError(f"{out}: exists; give another --out, or --force to write over it")
    tables = guess.tables(files(logs))
    columns = [column for table in tables for column in table.rows.columns]
    for role, column in said.items():
        if column not in columns:
            raise DataError(f"--{role}: no column {column!r} in the logs{nearest(column, columns)}")
    found = shape.arranged([shape.Log(table, guess.roles(table, said)) for table in tables])
    text, notes = draft.draft(found, out)
    specs.parse(text, where=str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    return notes


def files(logs: Sequence[Path]) -> list[Path]:
    """The files that are meant: those given, and all logs in a folder; DataError where there is none."""
    from rec.errors import DataError, nearest

    found: list[Path] = []
    for path in logs:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file() and one.name.endswith(_FORMS))
            if not inside:
                raise DataError(f"{path}: no file in it ends with one of {', '.join(_FORMS)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else ""
            raise DataError(f"{path}: no such file{near}")
    return list(dict.fromkeys(found))
