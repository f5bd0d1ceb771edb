"""`python -m benchmarks`: the same as `multigate bench`, from a checkout."""

from __future__ import annotations

from benchmarks.main import bench
from pipelines.cli.main import guarded

guarded(lambda: bench.main(prog_name="python -m benchmarks", standalone_mode=False))
