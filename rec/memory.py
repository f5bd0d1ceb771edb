"""Memory allocators: large blocks are kept between training steps, and between the tasks of a feature build.

glibc gives every block above 32 MB back to the kernel when it is freed, and a step at 4,096 candidates frees several:
the next step then pays for fresh, zeroed pages. With the thresholds raised they are reused, and so are Arrow's blocks,
whose own allocator is replaced with glibc's. Polars' allocator returns freed memory after half a second; it
reads its settings once, when polars is first imported, and only from the environment. Measured in
docs/log.md.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's parameters (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30  # bytes
_POLARS = "_RJEM_MALLOC_CONF"
_POLARS_KEEPS = "dirty_decay_ms:5000,muzzy_decay_ms:5000"  # milliseconds: longer than a task


def keep_large_blocks() -> bool:
    """Raise glibc's thresholds for this process and let Arrow allocate from it; False on systems without glibc."""
    if sys.platform != "linux":
        return False
    import ctypes

    import pyarrow as pa

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(_MMAP_THRESHOLD, _KEEP) and mallopt(_TRIM_THRESHOLD, _KEEP)):
        return False
    pa.set_memory_pool(pa.system_memory_pool())
    return True


def keep_polars_memory() -> None:
    """Keep polars' freed memory; call before polars is imported. Environment variables of the user take precedence."""
    if sys.platform == "linux":
        os.environ.setdefault(_POLARS, _POLARS_KEEPS)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import many modules without the collector of cycles, which would look through all of them again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
