"""From log files to the text of a spec, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def write(
    logs: Sequence[str],
    out: Path,
    *,
    roles: Mapping[str, str],
    labels: Sequence[str] = (),
    force: bool,
    known: Callable[[str, str], bool] | None = None,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, dict[str, str]]:
    """Write a spec for some logs; notes on what was taken for what, and what to look at.

    `logs` are files, folders, globs and addresses. `roles` are columns that a person named, by role: user, item, time,
    request; `labels` are the tasks' columns. `known` answers, for a column and the reason to leave it out, whether it
    was known before the impression; logs are read within `reading`, and nothing is asked there. Raises SpecError where
    `out` exists and `force` is not given, DataError where there is no impression, label or timestamp.
    """
    from pipelines.init import columns, render
    from pipelines.init.log_names import expanded, refuse_out
    from pipelines.init.named import refuse_labels, refuse_roles
    from pipelines.init.tables import LogTable, arranged
    from rec import spec as specs
    from rec.atomic import write_bytes
    from rec.errors import DataError, SpecError, nearest
    from rec.output_folder import locked

    named = expanded(logs)
    refuse_out(out, named)
    if out.is_dir():
        raise SpecError(f"{out}: is a folder; give the name of a file to --out, such as {out / 'spec.toml'}")
    with locked(out, "init"):
        if out.exists() and not force:
            raise SpecError(f"{out}: exists; give another --out, or --force to write over it")
        with reading():
            tables = columns.tables(named)
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
