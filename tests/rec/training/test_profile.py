"""multigate train --profile: a trace and a table."""

from __future__ import annotations

import json
import re

from rec.training import trainer
from tests.rec.training.watching import Said, watched


def test_a_profiled_run_has_a_trace_and_a_table(spec, data, tmp_path):
    """Chrome's format, with the kernels of a few steps; the table names the one that takes longest."""
    said = Said()
    trainer.train(watched(spec), data, tmp_path / "run", progress=said, profiled=True)
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name", "").startswith("ProfilerStep") for event in events) >= 4
    assert any("addmm" in event.get("name", "") or "bmm" in event.get("name", "") for event in events)
    (table,) = [line for line in said.lines if "CPU ms/step" in line]
    assert re.search(r"^ +\d+\.\d{3} +\d+\.\d% +\d+\.\d  \S", table, re.MULTILINE)


def test_a_run_of_too_few_steps_says_that_there_is_no_trace(spec, data, tmp_path):
    """The first steps are not worth tracing."""
    said = Said()
    train = spec.train.model_copy(update={"epochs": 1, "batch": 100_000})
    trainer.train(spec.model_copy(update={"train": train}), data, tmp_path / "run", progress=said, profiled=True)
    assert "no trace: 1 steps were trained, and the first 5 are left out" in said.lines
    assert not (tmp_path / "run" / "trace.json").exists()
