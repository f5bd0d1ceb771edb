"""Keeping large blocks of memory between training steps, and between the tasks of a build.

glibc gives every block above 32 MB back to the kernel when it is freed, and a step at 4,096 candidates frees several:
the next step then pays for fresh, zeroed pages. With the thresholds raised they are kept. Measured in docs/log.md.
"""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


def keep_large_blocks() -> bool:
    """Raise glibc's thresholds for this process; False where there is no glibc to ask."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _KEEP) and mallopt(_TRIM_THRESHOLD, _KEEP))
