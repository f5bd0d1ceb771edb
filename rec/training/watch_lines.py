"""MODEL/watch.jsonl: one JSON object a look, the oldest first.

    {"step": 200, "loss/click": 0.31, "auc/click": 0.71, "seconds/step": 0.02, "seconds/forward": 0.007, ...}

The file stays small: when it has `LINES` lines, every second of them is dropped. A run that goes on from a checkpoint
forgets the looks after it, which it is about to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rec.atomic import write_bytes

NAME = "watch.jsonl"
LINES = 4096


def read(path: Path) -> list[dict[str, Any]]:
    """The looks in a file, none where there is no such file; a last line that was cut short is left out."""
    if not path.exists():
        return []
    looks = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            looks.append(json.loads(line))
        except ValueError:
            continue
    return looks


class LineWatcher:
    """Appends a line a look; `step` is that of the checkpoint which training goes on from, 0 without one."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self._path = folder / NAME
        self._looks = [look for look in read(self._path) if look["step"] <= step]
        if self._path.exists():
            self._rewrite()

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a line."""
        look = {"step": step, **figures}
        self._looks.append(look)
        if len(self._looks) >= LINES:
            self._looks = self._looks[1::2]
            self._rewrite()
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(look, allow_nan=False) + "\n")

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Nothing: history.json has them."""

    def close(self) -> None:
        """Nothing is open."""

    def _rewrite(self) -> None:
        write_bytes(self._path, "".join(json.dumps(look) + "\n" for look in self._looks).encode())
