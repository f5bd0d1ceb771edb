"""Keeping large blocks of memory between training steps, and between the tasks of a build.

glibc gives every block above 32 MB back to the kernel when it is freed, and a step at 4,096 candidates frees several:
the next step then pays for fresh, zeroed pages. With the thresholds raised they are kept, and so is what Arrow takes,
which has an allocator of its own unless it is told to ask glibc. Measured in docs/log.md.
"""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa

# mallopt's parameters (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


def keep_large_blocks() -> bool:
    """Raise glibc's thresholds for this process and give Arrow its blocks; False where there is no glibc to ask."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(_MMAP_THRESHOLD, _KEEP) and mallopt(_TRIM_THRESHOLD, _KEEP)):
        return False
    pa.set_memory_pool(pa.system_memory_pool())
    return True
