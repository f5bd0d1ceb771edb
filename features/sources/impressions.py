"""Your own logs, one row per impression with label columns: Parquet, CSV, TSV or Arrow files, without code.

user_id,item_id,time,device,clicked,dwell          [source]
7,3,2026-03-02T10:00:00,phone,1,41                 kind = "impressions"
7,9,2026-03-02T10:00:00,phone,0,                   files = "logs/*.csv"
                                                   users = "users.parquet"      one row per keys.user
                                                   items = "items.parquet"      one row per keys.item
                                                   items_since = "valid_from"   or several, each from a timestamp on
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from features.logs.dtypes import Notation
from features.logs.files import condition, refuse_since, scan, side, where_true
from features.logs.logs import Logs
from rec.spec import Spec, Strict


class Options(Strict):
    """Paths, globs or addresses (docs/your-logs.md), relative to the spec."""

    files: str | list[str] = Field(description="one row per impression")
    where: str | None = Field(default=None, description="SQL: a row of which it is not true is no impression")
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    users_since: str | None = Field(default=None, description="several rows per user: the timestamp a row holds from")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")
    items_since: str | None = Field(default=None, description="several rows per item: the timestamp a row holds from")


def refuse(options: Options, _spec: Spec) -> None:
    """SpecError for an invalid SQL condition, and for a valid-from column of a table that is not given."""
    condition(options.where, "source.where")
    refuse_since(options.users, options.users_since, "source.users")
    refuse_since(options.items, options.items_since, "source.items")


def read(options: Options, spec: Spec, base: Path) -> Logs:
    """The logs in the files."""
    pieces, findings = scan(options.files, base, "source.files", spec.logs)
    return Logs(
        impressions=where_true(pieces, options.where, "source.where", Notation.of(spec)),
        users=side(options.users, options.users_since, base, "source.users", spec.logs),
        items=side(options.items, options.items_since, base, "source.items", spec.logs),
        findings=findings,
    )
