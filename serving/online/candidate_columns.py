"""The candidates of a request as columns of JSON values, however they were sent: as rows or as columns.

A name is looked up in the spec before anything is built for it, so that a body costs time and memory in proportion to
its bytes, whatever names it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from serving.online.problems import MAX_ERRORS, Problem, display, escape

# the JSON values of a name, and which candidates sent one (None: all)
Column = tuple[list[Any], np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one side of a request may send; `unknown` is the message about any other."""

    sendable: Collection[str]
    unknown: Callable[[str], str]
    problems: list[Problem]

    def known(self, names: Iterable[str], pointer: Callable[[str], str]) -> list[str]:
        """Those of `names` that may be sent; a problem for each other, up to MAX_ERRORS."""
        known: list[str] = []
        for name in names:
            if name in self.sendable:
                known.append(name)
            elif len(self.problems) >= MAX_ERRORS:
                break
            else:
                self.problems.append((pointer(name), self.unknown(name)))
        return known


def count_of(candidates: Any) -> int:
    """The number of candidates in rows, or in the longest of several columns."""
    if isinstance(candidates, dict):
        return max((len(values) for values in candidates.values() if isinstance(values, list)), default=0)
    return len(candidates) if isinstance(candidates, list) else 0


def from_columns(candidates: dict[str, Any], names: Names, count: int) -> dict[str, Column]:
    """Candidates sent as `{"item_id": [3, 5]}`; every list must have `count` values."""
    columns: dict[str, Column] = {}
    for name in names.known(candidates, lambda name: f"/candidates/{escape(name)}"):
        values = candidates[name]
        pointer, where = f"/candidates/{escape(name)}", f"candidates.{name}"
        if not isinstance(values, list):
            message = f"{where}: expected a list with a value per candidate, got {display(values)}"
            names.problems.append((pointer, message))
        elif len(values) != count:
            message = f"{where}: expected {count} values like the longest column, got {len(values)}"
            names.problems.append((pointer, message))
        else:
            columns[name] = (values, None)
    return columns


def from_rows(candidates: list[Any], names: Names) -> dict[str, Column]:
    """Candidates sent as `[{"item_id": 3}, {"item_id": 5}]`; a column of every name that any candidate has."""
    if not set(map(type, candidates)) <= {dict}:
        index = next(i for i, candidate in enumerate(candidates) if not isinstance(candidate, dict))
        got = display(candidates[index])
        names.problems.append((f"/candidates/{index}", f"candidates[{index}]: expected an object, got {got}"))
        return {}
    first = candidates[0] if candidates else {}
    if all(name in names.sendable for name in first):
        try:
            # as a rule all candidates have the names of the first, and no others
            columns: dict[str, Column] = {name: (list(map(itemgetter(name), candidates)), None) for name in first}
            if sum(map(len, candidates)) == len(first) * len(candidates):
                return columns
        except KeyError:
            pass
    return _from_ragged(candidates, names)


def _from_ragged(candidates: list[dict[str, Any]], names: Names) -> dict[str, Column]:
    """Columns of candidates that do not all have the same names, in the order in which names first appear."""
    first: dict[str, int] = {}
    most = len(names.sendable) + MAX_ERRORS
    for index, candidate in enumerate(candidates):
        for name in candidate:
            if name not in first and (name in names.sendable or len(first) < most):
                first[name] = index
    columns: dict[str, Column] = {}
    for name in names.known(first, lambda name: f"/candidates/{first[name]}/{escape(name)}"):
        present = np.array([name in candidate for candidate in candidates])
        values = [candidate.get(name) for candidate in candidates]
        columns[name] = (values, None if present.all() else present)
    return columns
