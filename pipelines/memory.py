"""Polars told to keep the memory it freed a while: the tasks of a build ask for blocks of the same sizes again.

Its allocator gives freed memory back to the kernel after half a second, and each block is then made of fresh, zeroed
pages. It reads how to behave once, when polars is first imported, and only from the environment. What Arrow and numpy
take from glibc is kept by `rec.allocator`. Measured in docs/log.md.
"""

from __future__ import annotations

import os
import sys

_VARIABLE = "_RJEM_MALLOC_CONF"
_KEPT = "dirty_decay_ms:5000,muzzy_decay_ms:5000,thp:always"  # milliseconds: longer than a task


def keep() -> None:
    """To be called before polars is imported; what the user set stays."""
    if sys.platform == "linux":
        os.environ.setdefault(_VARIABLE, _KEPT)
