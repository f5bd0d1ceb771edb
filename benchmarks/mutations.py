"""Mutated bundles and Arrow parts: each is refused with an error of ours, or opened and scored; nothing else happens.

    multigate bench mutations --bundle BUNDLE --data DATA --inputs 10000 --seed 1

A trial changes one file, by its seed: bytes anywhere, a piece cut out, doubled or moved, the end cut off. Of a bundle
it is any file, and the manifest vouches for it, as that of a hostile exporter would; what opens has to rank a request.
Trials run in processes of their own, so that a crash, a hang or growth is seen, and the trial named.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import psutil

from benchmarks.fuzz import good
from rec.atomic import inventory, read_json
from rec.data import splits
from rec.errors import BundleError, DataError
from rec.progress import Progress
from serving import batch
from serving.bundle import Bundle, load
from serving.online.problems import RequestError
from serving.online.rank import RankService
from serving.scorer import Scorer, check_golden

SHARE = 1000  # trials of a process
LONGEST = 60  # seconds of a trial, from which on it hangs
WARM = 100  # trials after which the memory of a process may not grow by half
MEMORY = 8 << 30  # bytes of data of a process: what a file makes it ask for is refused beyond
KINDS = ("bundles", "parts")
_EXTREMES = (b"\0" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80", b"\xff\xff\xff\x7f", b"\0\0\0\x80")

Trial = Callable[[int], bool]  # from a seed: whether what it makes was opened, rather than refused


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Bytes with one piece of them changed, at most 1 KiB but for a cut end."""
    start = draw.randrange(len(content) + 1)
    length = draw.choice((1, 2, 4, 8, 64, 1024))
    piece = content[start : start + length]
    how = draw.choice(("end", "cut", "double", "move", "flip", "extreme", "random"))
    if how == "end":
        return content[:start]
    if how == "cut":
        return content[:start] + content[start + length :]
    if how == "double":
        return content[: start + length] + content[start:]
    if how == "extreme":
        start, piece = start - start % 4, draw.choice(_EXTREMES)
    elif how == "move":
        start = draw.randrange(len(content) + 1)
    else:
        piece = bytes([byte ^ (1 << draw.randrange(8)) for byte in piece[:1]]) if how == "flip" else draw.randbytes(8)
    return content[:start] + piece + content[start + len(piece) :]


def of_bundles(bundle: Path, folder: Path) -> Trial:
    """Trials on copies of a bundle in `folder`."""
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    manifest = read_json(copy / "manifest.json")

    def trial(seed: int) -> bool:
        draw = random.Random(seed)  # noqa: S311  no secret
        path = draw.choice(files)
        content = path.read_bytes()
        try:
            path.write_bytes(mutated(content, draw))
            if path.name != "manifest.json":
                (copy / "manifest.json").write_text(json.dumps({**manifest, "files": inventory(copy)}))
            _use(load(copy))
        except BundleError:
            return False
        finally:
            path.write_bytes(content)
            (copy / "manifest.json").write_text(json.dumps(manifest))
        return True

    return trial


def _use(bundle: Bundle) -> None:
    """Score the golden requests of a bundle and rank a request, as a server does."""
    scorer = Scorer(bundle, threads=1)
    check_golden(scorer)
    with suppress(RequestError):  # numbers of the store that the model cannot bear
        RankService(bundle, scorer, new_id=str).rank(good(bundle), 0)


def of_parts(bundle: Path, part: Path, folder: Path) -> Trial:
    """Trials on copies of a part of session tables in `folder`, scored with a bundle."""
    scorer = Scorer(load(bundle), threads=1)
    content, path = part.read_bytes(), folder / part.name

    def trial(seed: int) -> bool:
        path.write_bytes(mutated(content, random.Random(seed)))  # noqa: S311  no secret
        try:
            for section in batch.sections(path):
                for _ in batch.tables(scorer, section, lambda *_: None):
                    pass
        except DataError:
            return False
        return True

    return trial


def bench(*, bundle: Path, data: Path, inputs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """So many mutated bundles and as many parts; how they ended. BundleError for an end that is none of ours."""
    part = splits.files(data, "test")[0]
    ends: dict[str, Any] = {}
    for kind in KINDS:
        progress.start(f"mutated {kind}", inputs, "inputs")
        counts: Counter[str] = Counter()
        for first in range(seed, seed + inputs, SHARE):
            last = min(first + SHARE, seed + inputs)
            counts += share([kind, str(bundle), str(part), str(first), str(last)])
            progress.advance(last - first)
        ends[kind] = dict(sorted(counts.items()))
    return {"inputs": inputs, "seed": seed, **ends}


def share(words: list[str]) -> Counter[str]:
    """How the trials of a process of its own ended: opened or refused; BundleError for any other end."""
    with TemporaryFile("w+", encoding="utf-8") as stderr:
        process = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.mutations", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False,
        )  # fmt: skip
        stderr.seek(0)
        fault = stderr.read().strip()
    trials = [line.split() for line in process.stdout.splitlines()]
    if process.returncode or any(len(trial) != 3 for trial in trials):
        last = trials[-1][0] if trials else words[3]
        raise BundleError(f"mutations: {words[0]}, seed {last}: ended with {process.returncode}: {fault[-2000:]}")
    memory = [int(trial[2]) for trial in trials]
    if len(memory) > WARM and memory[-1] > 1.5 * memory[WARM]:
        raise BundleError(f"mutations: {words[0]}: memory grew from {memory[WARM]} to {memory[-1]} MiB")
    return Counter(trial[1] for trial in trials)


def main(kind: str, bundle: str, part: str, first: str, last: str) -> None:
    """Trials in this process: a line for each, with its seed, how it ended, and MiB of memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with TemporaryDirectory(prefix="multigate-") as name:
        folder = Path(name)
        trial = of_bundles(Path(bundle), folder) if kind == "bundles" else of_parts(Path(bundle), Path(part), folder)
        for seed in range(int(first), int(last)):
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            sys.stdout.write(f"{seed} ")
            sys.stdout.flush()
            end = "opened" if trial(seed) else "refused"
            sys.stdout.write(f"{end} {psutil.Process().memory_info().rss >> 20}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
