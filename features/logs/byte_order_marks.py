"""Lines of JSON behind a byte order mark, as editors on Windows leave it: a copy without it, which a parser can read.

A copy lies in a temporary folder that ends with the process (TMPDIR says on which disk).
"""

from __future__ import annotations

import atexit
import codecs
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa


def without_mark(path: Path) -> Path:
    """The file, or an uncompressed copy of it without its byte order mark, the same one until the file changes."""
    with pa.input_stream(str(path), compression="detect") as text:
        if text.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return path
    state = path.stat()
    return _copy(path.absolute(), state.st_size, state.st_mtime_ns)


@cache
def _copy(path: Path, size: int, changed: int) -> Path:
    del size, changed  # another file of the same name
    handle, name = tempfile.mkstemp(dir=_folder(), suffix=".jsonl")
    with pa.input_stream(str(path), compression="detect") as text, os.fdopen(handle, "wb") as copy:
        text.read(len(codecs.BOM_UTF8))
        shutil.copyfileobj(text, copy)  # type: ignore[arg-type]  # reads as a file does
    return Path(name)


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="multigate-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
