"""A module of ours, run by a process beside this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_RUN = (
    "import json, runpy, sys; paths, name, *sys.argv[1:] = sys.argv[1:]; sys.path[:] = json.loads(paths); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


def module_process(name: str, arguments: Sequence[str], *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    """A process that runs a module of ours, mute but for stdout; it finds the packages that this one finds."""
    paths = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    command = [sys.executable, "-P", "-W", "ignore", "-c", _RUN, paths, name, *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)  # noqa: S603  our own
