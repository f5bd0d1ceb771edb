"""A command in a process of its own: its result, and the peak memory of its process tree.

Memory is the sum of resident sets (RSS), sampled ten times a second by psutil. Pages that processes share count once
for each; in the sum of proportional sets (PSS) they count once. PSS is costly to read, and is read where RSS has grown
by a twentieth; it is None where the system does not tell it (outside Linux).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from rec.atomic import read_json, write_json
from rec.errors import BundleError
from rec.progress import Progress

EVERY = 0.1  # seconds between two samples
GROWN = 1.05  # of the resident sum, until the proportional one is read again
TAIL = 8  # lines of a failed command that are shown


@dataclass(frozen=True)
class ProcessResult:
    """What a command answered, seconds from its start to its end, and of its process tree: core seconds, peak bytes."""

    answer: dict[str, Any]
    seconds: float
    core_seconds: float
    resident: int | None
    proportional: int | None


def run(module: str, job: Mapping[str, Any], folder: Path, progress: Progress) -> ProcessResult:
    """`python -m MODULE JOB.json`, which leaves its answer at `job["answer"]`.

    Raises BundleError with the end of its output where it failed.
    """
    answer, output = folder / "answer.json", folder / "output.log"
    answer.unlink(missing_ok=True)
    write_json(folder / "job.json", {**job, "answer": str(answer)})
    command = [sys.executable, "-W", "ignore", "-m", module, str(folder / "job.json")]
    before, began = _core_seconds(), time.perf_counter()
    with output.open("w", encoding="utf-8") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        watch = Watch(child.pid)
        try:
            with watch:
                while _runs(child):
                    progress.advance(0, GiB=(watch.resident or 0) / 2**30)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    seconds = time.perf_counter() - began
    if child.returncode or not answer.exists():
        lines = [line for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise BundleError(f"bench: {job} ended with {child.returncode}:\n" + "\n".join(lines[-TAIL:]))
    return ProcessResult(read_json(answer), seconds, _core_seconds() - before, watch.resident, watch.proportional)


def _runs(child: subprocess.Popen[bytes]) -> bool:
    """Whether it does for a while yet."""
    try:
        child.wait(EVERY)
    except subprocess.TimeoutExpired:
        return True
    return False


def _core_seconds() -> float:
    """Of all processes that ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Watch:
    """Samples a process and all its descendants, in a thread, while the block runs; the peaks so far in bytes."""

    def __init__(self, root: int) -> None:
        """`root` is the process's id."""
        self.resident: int | None = None
        self.proportional: int | None = None
        self._root, self._done, self._read_at = root, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        """Begin to sample."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(EVERY):
            processes = tree(self._root)
            now = sum(resident(process) for process in processes)
            self.resident = max(self.resident or 0, now)
            if now > GROWN * self._read_at:
                shares = [share for process in processes if (share := proportional(process)) is not None]
                if len(shares) == len(processes):
                    self._read_at, self.proportional = now, max(self.proportional or 0, sum(shares))


def tree(root: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(process: psutil.Process) -> int:
    """Bytes of a process that are in memory (RSS); 0 when it has ended."""
    try:
        return process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def proportional(process: psutil.Process) -> int | None:
    """The same with each shared page divided by its number of processes (PSS); None where the system does not tell."""
    try:
        return getattr(process.memory_full_info(), "pss", None)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
