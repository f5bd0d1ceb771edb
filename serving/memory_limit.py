"""Limits of the memory of a process, for what may expand beyond all measure when it is read."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BLOCK_BYTES = 4 << 30  # of memory that reading some rows may take


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
