"""Files that may hold far more than their bytes say, read by a process that may take so much memory and no more.

    compressed text, and tables, whose columns are compressed, have dictionaries and run lengths

A Parquet file of 2 kB can hold 20 GB. Whatever reads such a file of flat rows first, to count rows or to spool them, is
a process beside this one; where it asks for more than BLOCK_BYTES and _FACTOR times the size of the file, it ends, and
that file cannot be read. Plain text holds what its bytes say, and is read here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from features.logs.forms import LINES, SEPARATORS, form_of
from rec.module_process import module_process
from rec.spec import Spec, parse
from serving.memory_limit import BLOCK_BYTES, data_bytes, limited_memory
from serving.request_files import gather

_FACTOR = 16


def counted(paths: Sequence[Path], bundle: Path, spec: Spec) -> dict[Path, int]:
    """The rows of each file of flat rows; 0 where it cannot be read, as reading it will tell."""
    return dict(zip(paths, _done([(path, ()) for path in paths], bundle, spec), strict=True))


def spooled(sources: Mapping[Path, Sequence[Path]], bundle: Path, spec: Spec) -> Iterator[tuple[Path, list[int]]]:
    """Spool the rows of each file to the sources of its parts, and how many each of them has."""
    yield from zip(sources, _done([*sources.items()], bundle, spec), strict=True)


def _done(work: Sequence[tuple[Path, Sequence[Path]]], bundle: Path, spec: Spec) -> Iterator[Any]:
    """What became of each file, in order."""
    beside = _beside([entry for entry in work if _expands(entry[0])], bundle)
    for path, sources in work:
        yield next(beside) if _expands(path) else _read(path, sources, spec)


def _expands(path: Path) -> bool:
    form, packed = form_of(path)
    return packed or form not in (*SEPARATORS, *LINES)


def _read(path: Path, sources: Sequence[Path], spec: Spec) -> Any:
    return gather.spooled(path, spec, sources) if sources else gather.rows(path, spec)


def _beside(work: Sequence[tuple[Path, Sequence[Path]]], bundle: Path) -> Iterator[Any]:
    """What became of each file in a process beside this one; a file that ends one does not end the work."""
    left = [*work]
    while left:
        files = [[_allowed(path), str(path), *map(str, sources)] for path, sources in left]
        for answer in _answers([str(bundle), json.dumps(files)]):
            left.pop(0)
            yield answer
        if left:
            path, sources = left.pop(0)
            yield _ended(path, sources)


def _answers(arguments: list[str]) -> Iterator[Any]:
    pipe = subprocess.PIPE
    process = module_process("serving.request_files.expansion", arguments, stdin=pipe, stdout=pipe)
    assert process.stdout is not None, "it is a pipe"
    try:
        for line in process.stdout:
            answer = json.loads(line)
            if "errno" in answer:
                raise OSError(answer["errno"], *answer["text"])
            yield answer["rows"]
    finally:
        process.kill()
        process.communicate()


def _ended(path: Path, sources: Sequence[Path]) -> Any:
    """What is said of a file whose reader ended."""
    text = (
        f"{path}: cannot be read: that takes more than {_allowed(path) >> 20} MiB of memory, "
        f"for a file of {path.stat().st_size} bytes"
    )
    gather.unreadable(sources, text)
    return [0] * len(sources) if sources else 0


def _allowed(path: Path) -> int:
    return BLOCK_BYTES + _FACTOR * path.stat().st_size


def _main(bundle: str, files: str) -> None:
    """Read files as they are asked for, with an answer on stdout, a line each, until whoever asks has gone."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    spec = parse((Path(bundle) / "spec.toml").read_text(encoding="utf-8"), where="spec.toml")
    for allowed, name, *sources in json.loads(files):
        path = Path(name)
        try:
            with limited_memory(data_bytes() + allowed):
                answer: dict[str, Any] = {"rows": _read(path, [Path(source) for source in sources], spec)}
        except OSError as error:
            answer = {"errno": error.errno, "text": [error.strerror, error.filename or name]}
        print(json.dumps(answer), flush=True)  # noqa: T201  to whoever asks


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
