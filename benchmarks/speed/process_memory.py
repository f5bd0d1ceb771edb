"""A command in a process of its own: its answer, and the most memory it and the processes it started held at once.

Memory is the sum of resident sets as /proc tells it, looked at ten times a second. Pages that processes share count
once for each; their proportional sum (PSS), in which they count once, is costly to ask for, and is taken where the
first sum has grown by a twentieth. Both are None where there is no /proc.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rec.atomic import read_json, write_json
from rec.errors import BundleError
from rec.progress import Progress

EVERY = 0.1  # seconds between two looks
GROWN = 1.05  # of the resident sum, until the proportional one is asked for again
TAIL = 8  # lines of a failed command that are shown
_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Ran:
    """What a command answered, the core seconds its tree of processes took, and the peaks of the tree in bytes."""

    answer: dict[str, Any]
    cores: float
    resident: int | None
    proportional: int | None


def run(module: str, told: Mapping[str, Any], folder: Path, progress: Progress) -> Ran:
    """`python -m MODULE JOB.json` with what it is told; it leaves its answer at `told["answer"]`.

    Raises BundleError with the end of what it said where it failed.
    """
    answer, log = folder / "answer.json", folder / "said.log"
    answer.unlink(missing_ok=True)
    write_json(folder / "job.json", {**told, "answer": str(answer)})
    command = [sys.executable, "-W", "ignore", "-m", module, str(folder / "job.json")]
    before = _core_seconds()
    with log.open("w", encoding="utf-8") as said:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)  # noqa: S603
        watch = Watch(child.pid)
        try:
            with watch:
                while child.poll() is None:
                    time.sleep(EVERY)
                    progress.advance(0, GiB=(watch.resident or 0) / 2**30)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode or not answer.exists():
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise BundleError(f"bench: {told} ended with {child.returncode}:\n" + "\n".join(lines[-TAIL:]))
    return Ran(read_json(answer), _core_seconds() - before, watch.resident, watch.proportional)


def _core_seconds() -> float:
    """Of all processes that ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Watch:
    """Looks at a process and all below it, in a thread, while the block runs; the peaks so far in bytes."""

    def __init__(self, root: int) -> None:
        """`root` is the process's id."""
        self.resident: int | None = None
        self.proportional: int | None = None
        self._root, self._done, self._asked = root, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while _PROC.is_dir() and not self._done.wait(EVERY):
            tree = below(self._root)
            now = sum(resident(process) for process in tree)
            self.resident = max(self.resident or 0, now)
            if now > GROWN * self._asked:
                shares = [share for process in tree if (share := proportional(process)) is not None]
                if len(shares) == len(tree):
                    self._asked, self.proportional = now, max(self.proportional or 0, sum(shares))


def below(root: int) -> list[int]:
    """A process and all that it started, and those in turn."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            # the name of the command stands in brackets before, and may hold anything
            fields = _text(entry / "stat").rpartition(")")[2].split()
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, ahead = [], [root]
    while ahead:
        tree.append(ahead.pop())
        ahead += parents.get(tree[-1], [])
    return tree


def resident(process: int) -> int:
    """Bytes of a process that are in memory; 0 when it has gone."""
    fields = _text(_PROC / str(process) / "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def proportional(process: int) -> int | None:
    """The same with each shared page divided by how many processes share it; None where the kernel does not say."""
    for line in _text(_PROC / str(process) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
