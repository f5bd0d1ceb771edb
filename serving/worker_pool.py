"""Tasks in several processes of this machine, each with the job and what it opened for it; and limits of a process.

    ProcessExecutor(4).run(task, job, [0, 1, 2])     (1, result of task(job, 1)), (0, ...), (2, ...)

The parent's end is theirs: no process outlives it, however it ends. They start anew ("spawn"), so a script that calls
this is guarded by `if __name__ == "__main__":`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

Task = Callable[[Any, int], Any]
_RUN = (
    "import json, runpy, sys; paths, name, *sys.argv[1:] = sys.argv[1:]; sys.path[:] = json.loads(paths); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)
BLOCK_BYTES = 4 << 30  # of memory that reading some rows may take


def module_process(name: str, arguments: Sequence[str], *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    """A process that runs a module of ours, mute but for stdout; it finds the packages that this one finds."""
    paths = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    command = [sys.executable, "-P", "-W", "ignore", "-c", _RUN, paths, name, *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)  # noqa: S603  our own


def bounded(blocks: Iterator[Any], count: int) -> Iterator[Any]:
    """The same blocks; where this process needs more than `count` bytes to read one, reading it is a MemoryError."""
    while True:
        with limited_memory(data_bytes() + count):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def data_bytes() -> int:
    """Bytes of data of this process now, as its limit counts them; 0 where the system does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmData:")).split()[1])
    return 0


@contextmanager
def limited_memory(count: int) -> Iterator[None]:
    """At most `count` bytes of data of this process while the block runs: what asks for more gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


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
