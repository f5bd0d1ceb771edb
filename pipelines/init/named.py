"""What a person names for `multigate init`: refused where a column cannot be what it is said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from pipelines.init import columns
from pipelines.init.columns import FileGroup, Roles
from pipelines.init.tables import LogTable
from rec.errors import DataError

_ROLES = ("user", "item", "time", "request", "session", "kind", "split")


def refuse_roles(tables: Sequence[FileGroup], roles: Mapping[str, str]) -> None:
    """DataError for a column that is no key: one of lists, or `--time` of something else than timestamps."""
    by_column: dict[str, str] = {}
    for role, column in roles.items():
        if column in by_column:
            raise DataError(f"--{role}: {column!r} is --{by_column[column]} already; a column is one key")
        by_column[column] = role
        for rows in (table.rows for table in tables if column in table.rows.columns):
            if rows[column].dtype.is_nested():
                raise DataError(f"--{role} {column}: expected one value per row, got {rows[column].dtype}")
            if role == "time" and columns.clock(rows[column]) is None:
                example = rows[column].drop_nulls().head(1).to_list()
                raise DataError(f"--time {column}: expected timestamps, got {example[0] if example else 'nothing'!r}")


def refuse_labels(logs: Sequence[LogTable], labels: Sequence[str]) -> None:
    """DataError for a label that is a key of every table that has it."""
    for label in labels:
        having = [log.roles for log in logs if label in log.table.rows.columns]
        taken = [role for roles in having if (role := _role_of(roles, label)) is not None]
        if taken and len(taken) == len(having):
            raise DataError(f"--label {label}: is taken for the {taken[0]}; name another column by --{taken[0]}")


def _role_of(roles: Roles, column: str) -> str | None:
    named = {field.name: getattr(roles, field.name) for field in fields(roles) if field.name in _ROLES}
    return next((role for role, own in named.items() if own == column), None)
