"""From log files to the text of a spec, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def write(
    logs: Sequence[Path],
    out: Path,
    *,
    roles: Mapping[str, str],
    labels: Sequence[str] = (),
    force: bool,
    known: Callable[[str, str], bool] | None = None,
) -> dict[str, dict[str, str]]:
    """Write a spec for some logs; notes on what was taken for what, and what to look at.

    `roles` are columns that a person named, by role: user, item, time, request; `labels` are the tasks' columns.
    `known` answers, for a column and the reason to leave it out, whether it was known before the impression. Raises
    SpecError where `out` exists and `force` is not given, DataError where there is no impression, label or timestamp.
    """
    from pipelines.init import columns, render
    from pipelines.init.named import refuse_labels, refuse_roles
    from pipelines.init.tables import LogTable, arranged
    from rec import spec as specs
    from rec.atomic import write_bytes
    from rec.errors import DataError, SpecError, nearest
    from rec.output_folder import locked

    paths = files(logs)
    if out.resolve() in {path.resolve() for path in paths}:
        raise SpecError(f"{out}: is one of the logs; give another --out")
    if out.is_dir():
        raise SpecError(f"{out}: is a folder; give the name of a file to --out, such as {out / 'spec.toml'}")
    with locked(out, "init"):
        if out.exists() and not force:
            raise SpecError(f"{out}: exists; give another --out, or --force to write over it")
        tables = columns.tables(paths)
        names = [name for table in tables for name in table.rows.columns]
        for role, column in (*roles.items(), *(("label", label) for label in labels)):
            if column not in names:
                raise DataError(f"--{role}: no column {column!r} in the logs{nearest(column, names)}")
        refuse_roles(tables, roles)
        logs_of = [LogTable(table, columns.roles(table, roles, labels)) for table in tables]
        refuse_labels(logs_of, labels)
        layout = arranged(logs_of)
        text, notes = render.draft(layout, out, known=known)
        specs.parse(text, where=str(out))
        write_bytes(out, text.encode())
    return notes


def files(logs: Sequence[Path]) -> list[Path]:
    """The files that are meant: those given, and all logs in a folder; DataError where there is none."""
    from features.logs.forms import ENDINGS
    from rec.errors import DataError, nearest

    paths: list[Path] = []
    for path in logs:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(ENDINGS))
            if not inside:
                raise DataError(f"{path}: no file in it ends with one of {', '.join(ENDINGS)}")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            near = nearest(path.name, [file.name for file in path.parent.glob("*")]) if path.parent.is_dir() else ""
            raise DataError(f"{path}: no such file{near}")
    return list(dict.fromkeys(paths))
