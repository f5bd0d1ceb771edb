"""From log files to the text of a spec, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_FORMS = (".parquet", ".csv", ".tsv", ".csv.gz", ".arrow", ".feather")


def write(logs: Sequence[Path], out: Path, *, said: Mapping[str, str], force: bool) -> dict[str, dict[str, str]]:
    """Write a spec for some logs; what was taken for what, and what to look at.

    `said` are roles of columns that a person named: user, item, time, request, label. Raises SpecError where `out`
    exists and `force` is not given, DataError where the logs hold nothing that a ranking could be learnt from.
    """
    from pipelines.init import columns as guess
    from pipelines.init import render
    from pipelines.init import tables as shape
    from rec import spec as specs
    from rec.atomic import write_bytes
    from rec.errors import DataError, SpecError, nearest

    if out.exists() and not force:
        raise SpecError(f"{out}: exists; give another --out, or --force to write over it")
    tables = guess.tables(files(logs))
    columns = [column for table in tables for column in table.rows.columns]
    for role, column in said.items():
        if column not in columns:
            raise DataError(f"--{role}: no column {column!r} in the logs{nearest(column, columns)}")
    found = shape.arranged([shape.Log(table, guess.roles(table, said)) for table in tables])
    text, notes = render.draft(found, out)
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
