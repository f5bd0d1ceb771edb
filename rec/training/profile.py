"""A trace of a few steps by torch.profiler: MODEL/trace.json for chrome://tracing or Perfetto, and a table of the top.

The first steps are left out: kernels are chosen, memory is allocated and code is compiled in them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

NAME = "trace.json"
WAIT, WARM_UP, STEPS = 3, 2, 4  # steps before the profiler starts, that it throws away, and that it keeps
TOP = 12  # rows of the table


class Profile:
    """Traces the steps after the first `WAIT + WARM_UP`; call `step` after each."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._path, self._cuda = folder / NAME, device.type == "cuda"
        self._done, self._text = 0, ""
        activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * self._cuda]
        phases = schedule(wait=WAIT, warmup=WARM_UP, active=STEPS, repeat=1)
        self._profile = profile(activities=activities, schedule=phases, on_trace_ready=self._ready, acc_events=True)
        self._profile.start()

    def step(self) -> None:
        """A step is done."""
        if self._done >= WAIT + WARM_UP + STEPS:
            return
        self._done += 1
        self._profile.step()
        if self._done == WAIT + WARM_UP + STEPS:
            self._profile.stop()

    def close(self) -> str:
        """The table, or why there is none."""
        if self._done < WAIT + WARM_UP + STEPS:
            self._profile.stop()
        if not self._text:
            return f"no trace: {self._done} steps were trained, and the first {WAIT + WARM_UP} are left out"
        return f"{self._text}\n{self._path}: open it in chrome://tracing or https://ui.perfetto.dev"

    def _ready(self, traced: profile) -> None:
        if self._text or self._done <= WAIT + WARM_UP:
            return
        beside = self._path.with_name(f".{NAME}.tmp")
        traced.export_chrome_trace(str(beside))
        beside.replace(self._path)
        self._text = self._table(traced)

    def _table(self, traced: profile) -> str:
        """The kernels and operations with most time of their own, a step, on the device that computes."""
        spent = [
            ((e.self_device_time_total if self._cuda else e.self_cpu_time_total) / 1000, e.count, e.key)
            for e in traced.key_averages()
            if not e.key.startswith("ProfilerStep")
        ]
        total, steps = sum(time for time, _, _ in spent) or 1.0, self._done - WAIT - WARM_UP
        where = "CUDA" if self._cuda else "CPU"
        rows = [f"{f'{where} ms/step':>12}  {'share':>6}  {'calls/step':>10}  kernel or operation"]
        rows += [
            f"{time / steps:12.3f}  {time / total:6.1%}  {count / steps:10.1f}  {name[:70]}"
            for time, count, name in sorted(spent, reverse=True)[:TOP]
        ]
        return "\n".join(rows)
