"""Units: who owns an expert. A task, a group of tasks, or all of them; and how many experts each is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from rec.errors import SpecError, nearest
from rec.spec import Positive

SHARED = "(shared)"  # no task can be named so

Counts = Positive | dict[str, Annotated[int, Field(ge=0)]]


def group(name: str) -> str:
    """The unit of what a group of tasks shares; no task can be named so."""
    return f"({name})"


def counts(asked: int | Mapping[str, int], tasks: Sequence[str], where: str) -> dict[str, int]:
    """Experts per task: one number for all, or a number per task (1 where a task is not named).

    Raises SpecError when a name is no task.
    """
    if isinstance(asked, int):
        return dict.fromkeys(tasks, asked)
    for name in asked:
        if name not in tasks:
            raise SpecError(f"{where}.{name}: no task {name!r}{nearest(name, tasks)}")
    return {task: asked.get(task, 1) for task in tasks}


def owners(number: Mapping[str, int]) -> list[str]:
    """The unit of every expert, unit by unit."""
    return [unit for unit, count in number.items() for _ in range(count)]
