"""Execution engines of a step's tasks: serial, threads on all cores, or a Ray cluster. The output is the same.

A task is a function of a module called with (job, index): it reads files of the job's folder, writes files there, and
returns a small JSON-serializable result. Results are kept, so an interrupted step repeats only the missing tasks.

An executor of another package is a class, made as `Class(workers)`, that runs tasks as Executor says and is closed at
the end; `--engine` names it by its entry point in the group multigate.executors, or by package.module:Class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rec import telemetry
from rec.atomic import read_json, write_json
from rec.errors import DataError, SpecError, nearest
from rec.progress import Progress
from rec.spec import plugins

NAMES = ("auto", "serial", "threads", "ray")
GROUP = "multigate.executors"
_WHERE = "--engine"
Task = Callable[[Any, int], Any]


class Executor(Protocol):
    """Runs one function for several indices."""

    def run(self, task: Task, job: Any, indices: list[int]) -> Iterator[tuple[int, Any]]:
        """`(index, result)` of every task, in order of completion."""
        ...


class SerialExecutor:
    """One task after the other, in this process."""

    def run(self, task: Task, job: Any, indices: list[int]) -> Iterator[tuple[int, Any]]:
        """In order."""
        for index in indices:
            yield index, task(job, index)


class ThreadExecutor:
    """Several tasks at a time, one per core: numpy, polars and Arrow release the GIL for most of the work."""

    def __init__(self, workers: int) -> None:
        """`workers` threads."""
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="features")

    def run(self, task: Task, job: Any, indices: list[int]) -> Iterator[tuple[int, Any]]:
        """In order of completion; the first error cancels tasks that have not begun."""
        waiting = {self._pool.submit(task, job, index): index for index in indices}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for the tasks that have begun."""
        self._pool.shutdown(cancel_futures=True)


class RayExecutor:
    """Ray tasks, on the cluster of this machine or a new local one; all nodes must share the output folder."""

    def __init__(self, workers: int) -> None:
        """Join the cluster that `ray start` made this machine part of, or start one of `workers` here."""
        telemetry.switch_off()
        try:
            import ray
        except ImportError:
            raise SpecError("engine \"ray\" needs Ray: `pip install 'multigate[ray]'` installs it") from None
        self._ray = ray
        if ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            ray.init(num_cpus=workers, include_dashboard=False, **quiet)

    def run(self, task: Task, job: Any, indices: list[int]) -> Iterator[tuple[int, Any]]:
        """In order of completion; OSError where a worker, or the node it was on, is lost."""
        from ray.exceptions import RayError, RayTaskError

        remote = self._ray.remote(max_retries=0)(task)
        waiting = {remote.remote(job, index): index for index in indices}
        while waiting:
            (done,), _ = self._ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(done)
            try:
                yield index, self._ray.get(done)
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, DataError | SpecError | OSError) else error) from None
            except RayError as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise OSError(
                    f"a worker of the Ray cluster ended before it was done: {reason} "
                    "What is done is kept, and the same command goes on"
                ) from None

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def described() -> dict[str, str]:
    """Every executor with its description: ours, and those of other packages."""
    ours = {"auto": "Threads where there are several cores, else serial."}
    ours |= {
        name: executor.__doc__ or ""
        for name, executor in (("serial", SerialExecutor), ("threads", ThreadExecutor), ("ray", RayExecutor))
    }
    return {**ours, **plugins.described(GROUP, NAMES)}


def elsewhere(name: str) -> tuple[str, type] | None:
    """An executor of another package as package.module:Class and the class; None for one of ours.

    Raises SpecError where there is no such executor, or the class cannot run and be closed.
    """
    if name in NAMES:
        return None
    target = name
    if not plugins.is_target(name):
        plugin = plugins.registered(GROUP, name, _WHERE)
        if plugin is None:
            known = [*NAMES, *(plugin.name for plugin in plugins.installed(GROUP))]
            raise SpecError(f"{_WHERE}: no executor {name!r}: {', '.join(known)}{nearest(name, known)}")
        target = plugin.target
    engine = plugins.load(target, _WHERE)
    plugins.has_methods(engine, ("run", "close"), target=target, where=_WHERE)
    return target, engine


@contextmanager
def engine(name: str, *, workers: int | None = None) -> Iterator[Executor]:
    """The engine of that name; "auto" takes threads where there are several cores."""
    workers = workers or os.cpu_count() or 1
    if name == "serial" or (name == "auto" and workers == 1):
        yield SerialExecutor()
        return
    theirs = elsewhere(name)
    if theirs is not None:
        executor = plugins.construct(theirs[0], _WHERE, theirs[1], workers)
    else:
        executor = RayExecutor(workers) if name == "ray" else ThreadExecutor(workers)
    try:
        yield executor
    finally:
        executor.close()


@dataclass(frozen=True)
class StepRunner:
    """The steps of a job, each the same function over several indices, with results kept in `folder`."""

    engine: Executor
    folder: Path
    progress: Progress

    def run(
        self, name: str, task: Task, job: Any, count: int, *, after: Callable[[Any], object] | None = None
    ) -> list[Any]:
        """The results of all tasks of a step, in order; tasks that an earlier run finished are not repeated.

        `after` is called here with each result, while others are still at work, before the result is kept.
        """
        results = self.folder / name
        results.mkdir(parents=True, exist_ok=True)
        files = [results / f"{index:05d}.json" for index in range(count)]
        missing = [index for index, file in enumerate(files) if not file.exists()]
        self.progress.start(name, count, "tasks")
        self.progress.advance(count - len(missing))
        for index, result in self.engine.run(task, job, missing):
            if after is not None:
                after(result)
            write_json(files[index], result)
            self.progress.advance(1)
        return [read_json(file) for file in files]


class Workers:
    """Threads of this process that a replay shares its work with; without any, it does all of it itself."""

    def __init__(self, count: int) -> None:
        """So many threads; none where there is one core."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="features") if count > 1 else None

    def mapped(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """The function of every item, in order."""
        return map(function, items) if self._pool is None else self._pool.map(function, items)

    def submit(self, function: Callable[..., Any], *values: Any) -> Future[Any]:
        """The function of some values, to be waited for."""
        if self._pool is not None:
            return self._pool.submit(function, *values)
        done: Future[Any] = Future()
        done.set_result(function(*values))
        return done

    def close(self) -> None:
        """Wait for what has begun; what has not is not done."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
