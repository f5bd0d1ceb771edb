"""Your own logs, one row per impression with label columns: Parquet, CSV, TSV or Arrow files, and nothing to program.

user_id,item_id,time,device,clicked,dwell          [source]
7,3,2026-03-02T10:00:00,phone,1,41                 kind = "impressions"
7,9,2026-03-02T10:00:00,phone,0,                   files = "logs/*.csv"
                                                   users = "users.parquet"      one row per keys.user
                                                   items = "items.parquet"      one row per keys.item
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from features.logs import Logs, scan
from rec.spec import Spec, Strict


class Options(Strict):
    """Paths or globs, relative to the spec."""

    files: str | list[str] = Field(description="one row per impression")
    users: str | list[str] | None = Field(default=None, description="one row per user, joined by keys.user")
    items: str | list[str] | None = Field(default=None, description="one row per item, joined by keys.item")


def read(options: Options, _spec: Spec, base: Path) -> Logs:
    """The files as they are."""
    return Logs(
        impressions=scan(options.files, base, "source.files"),
        users=None if options.users is None else scan(options.users, base, "source.users"),
        items=None if options.items is None else scan(options.items, base, "source.items"),
    )
