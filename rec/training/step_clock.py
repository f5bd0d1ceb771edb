"""Where the time of one step goes: a clock that is told which part of the step has just ended.

On a CPU it reads the clock of the process; on CUDA it records events, so that the device is not kept waiting, and waits
for them once, when it is asked.
"""

from __future__ import annotations

import time

import torch

PHASES = ("data", "tables", "forward", "backward", "communication", "optimizer")  # in the order of a step


class StepClock:
    """Seconds of every part of a step, from the moment the clock is made."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self.skip()

    def mark(self, phase: str) -> None:
        """What has passed since the last mark was this part of the step."""
        self._marks.append((phase, self._now()))

    def skip(self) -> None:
        """What has passed since the last mark was no part of the step."""
        self._marks.append(("", self._now()))

    def seconds(self) -> dict[str, float]:
        """{part: seconds}, each part summed over its marks; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        out: dict[str, float] = {}
        for (_, before), (phase, after) in zip(self._marks, self._marks[1:], strict=False):
            if phase:
                out[phase] = out.get(phase, 0.0) + _between(before, after)
        return out

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, torch.cuda.Event):
        assert isinstance(after, torch.cuda.Event)
        return before.elapsed_time(after) / 1000
    assert not isinstance(after, torch.cuda.Event)
    return after - before
