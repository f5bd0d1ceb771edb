"""Session tables with fewer requests to train on, for tests of so many steps and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

from rec.data import splits
from rec.spec import Spec


def of(data: Path, out: Path, spec: Spec, *, requests: int) -> Path:
    """A copy of session tables whose training split has the first `requests` of one part alone."""
    shutil.copytree(data, out)
    first = next(splits.read(data, "train", spec))
    assert len(first) >= requests
    for part in splits.files(out, "train"):
        part.unlink()
    splits.write(out / "train" / "part-00000.arrow", [first.slice(0, requests)], first.schema)
    return out
