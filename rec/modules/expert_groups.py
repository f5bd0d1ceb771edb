"""Expert groups: the experts of a task, of a group of tasks, or of all tasks (SHARED), and how many each has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from rec.errors import SpecError, nearest
from rec.spec import Few

SHARED = "(shared)"  # no task can be named so

NonNegative = Annotated[int, Field(ge=0, le=1000)]
Counts = Few | dict[str, NonNegative]


def group(name: str) -> str:
    """The name of the expert group that a group of tasks shares; neither a task nor SHARED can be named so."""
    return f"[{name}]"


def grouped(groups: Mapping[str, Sequence[str]], tasks: Mapping[str, str | None], where: str) -> dict[str, list[str]]:
    """The configured groups of tasks; without any, one per tree of the task graph, named by its root.

    Raises SpecError when a name is no task, or a task is not in exactly one group.
    """
    if not groups:
        root = {}  # parents come before children
        for task, parent in tasks.items():
            root[task] = task if parent is None else root[parent]
        return {name: [task for task in tasks if root[task] == name] for name in tasks if root[name] == name}
    home: dict[str, str] = {}
    for name, members in groups.items():
        for task in members:
            if task not in tasks:
                raise SpecError(f"{where}.{name}: no task {task!r}{nearest(task, tasks)}")
            if task in home:
                raise SpecError(f"{where}.{name}: task {task!r} is in group {home[task]!r} already")
            home[task] = name
    for task in tasks:
        if task not in home:
            raise SpecError(f"{where}: task {task!r} is in no group: {', '.join(groups)}")
    return {name: list(members) for name, members in groups.items()}


def counts(number: int | Mapping[str, int], tasks: Sequence[str], where: str) -> dict[str, int]:
    """Experts per task: one number for all, or a number per task (1 where a task is not named).

    Raises SpecError when a name is no task.
    """
    if isinstance(number, int):
        return dict.fromkeys(tasks, number)
    for name in number:
        if name not in tasks:
            raise SpecError(f"{where}.{name}: no task {name!r}{nearest(name, tasks)}")
    return {task: number.get(task, 1) for task in tasks}


def owners(number: Mapping[str, int]) -> list[str]:
    """The expert group of every expert, group by group."""
    return [name for name, count in number.items() for _ in range(count)]


def with_shared(task_experts: int | Mapping[str, int], shared: int, tasks: Sequence[str]) -> dict[str, int]:
    """Experts per group of CGC and PLE: the tasks, then SHARED unless empty.

    Raises SpecError when a name is no task, or when a task would have no expert at all.
    """
    number = counts(task_experts, tasks, "model.task_experts")
    for task, count in number.items():
        if count + shared == 0:
            raise SpecError(f"model.task_experts.{task}: expected at least 1 where shared_experts is 0, got 0")
    return {**number, SHARED: shared} if shared else number


def own_or_shared(row: str, owner: str) -> bool:
    """The gate mask of CGC and PLE: a task's gate sees its own and shared experts, the shared gate all."""
    return row == SHARED or owner in (row, SHARED)
