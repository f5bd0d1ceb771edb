"""Tasks in several processes of this machine, each with the job and what it opened for it.

    ProcessExecutor(4).run(task, job, [0, 1, 2])     (1, result of task(job, 1)), (0, ...), (2, ...)

The parent's end is theirs: no process outlives it, however it ends. They start anew ("spawn"), so a script that calls
this is guarded by `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

Task = Callable[[Any, int], Any]


class ProcessExecutor:
    """Several processes, a task each."""

    def __init__(self, workers: int) -> None:
        """At most so many at a time."""
        self._workers = workers
        self._processes: dict[Connection, BaseProcess] = {}

    def run(self, task: Task, job: Any, indices: list[int]) -> Iterator[tuple[int, Any]]:
        """In order of completion; the first error ends all.

        Raises what a task raised, and OSError where a process died.
        """
        left, busy = deque(indices), dict[Connection, int]()
        try:
            for _ in range(min(self._workers, len(indices))):
                self._next(self._started(task, job), left, busy)
            while busy:
                for ready in wait(list(busy)):
                    connection = cast("Connection", ready)
                    index = busy.pop(connection)
                    result = self._received(connection)
                    self._next(connection, left, busy)
                    yield index, result
        finally:
            self.close()

    def close(self) -> None:
        """End every process at once; what it was at is lost."""
        for connection, process in self._processes.items():
            process.kill()
            connection.close()
        for process in self._processes.values():
            process.join()
        self._processes.clear()

    def _started(self, task: Task, job: Any) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, task, job), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _next(self, connection: Connection, left: deque[int], busy: dict[Connection, int]) -> None:
        if left:
            busy[connection] = left.popleft()
            connection.send(busy[connection])

    def _received(self, connection: Connection) -> Any:
        try:
            result, error = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[connection]
            process.join()
            raise OSError(
                f"a process that scored ended before it was done (exit code {process.exitcode}): it was killed, "
                "perhaps for the memory it took; what is done is kept, and the same command goes on"
            ) from None
        if error is not None:
            raise error
        return result


def _work(connection: Connection, task: Task, job: Any) -> None:
    """Do what is asked for until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, who ends this process
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        try:
            index = connection.recv()
        except EOFError:
            return
        try:
            answer = (task(job, index), None)
        except Exception as error:  # noqa: BLE001  the parent raises it
            answer = (None, error)
        connection.send(answer)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by somebody"
    parent.join()
    os._exit(1)
