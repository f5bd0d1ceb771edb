"""The tables of docs/measured/load.md, soak.md and crowd.md, and of pages of swaps and peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.quality import PageContent
from benchmarks.quality.page import table


def page(result: Mapping[str, Any]) -> PageContent:
    """What a bench of the endpoint found: `rows` as one table, where there are any, and everything else as another."""
    single = {name: value for name, value in result.items() if name != "rows"}
    tables = {"server": table(["", "value"], [[_words(name), _figure(value)] for name, value in single.items()])}
    if rows := [asdict(row) for row in result.get("rows", ())]:
        titles = [_words(name) for name in rows[0]]
        tables["rows"] = table(titles, [[_figure(value) for value in row.values()] for row in rows])
    return PageContent(tables)


def _words(name: str) -> str:
    """`p99_ms` as `p99, ms`: a unit behind a comma."""
    for unit in ("ms", "mib"):
        if name.endswith(f"_{unit}"):
            return f"{_words(name.removesuffix(f'_{unit}'))}, {'MiB' if unit == 'mib' else unit}"
    return name.replace("_", " ")


def _figure(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_figure, value))
    if value is None or value != value:  # noqa: PLR0124  NaN is not itself
        return "n/a"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
