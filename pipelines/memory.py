"""Polars told to keep the memory it freed: the tasks of a build ask for blocks of the same sizes again and again.

Its allocator gives freed memory back to the kernel after half a second, and each block is then made of fresh, zeroed
pages. It reads how to behave once, when polars is first imported, and only from the environment. What Arrow and numpy
take from glibc is kept by `rec.allocator`. Measured in docs/log.md.
"""

from __future__ import annotations

import os

_VARIABLE = "_RJEM_MALLOC_CONF"
_KEPT = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always"


def keep() -> None:
    """To be called before polars is imported; what the user set stays."""
    os.environ.setdefault(_VARIABLE, _KEPT)
