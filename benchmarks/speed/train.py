"""`multigate bench train`: a training step of multigate's MMoE against a plain PyTorch one of the same sizes.

The plain one is a straightforward implementation: nn.Embedding with dense gradients and Adam for all weights, a Python
loop over experts, the context repeated for every candidate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed import synthetic
from rec.losses import task_losses
from rec.progress import Progress
from rec.request import RequestBatch
from rec.spec import Spec
from rec.training.step import Fit, new_fit, step

CANDIDATES = 4096
# where the time of our step goes: kernels by what they do
_PLACES = {
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"),
    "table lookups": ("fbgemm::split_embedding_codegen_forward", "fbgemm::bounds_check", "fbgemm::permute_pooled"),
    "table updates": ("fbgemm::split_embedding_backward",),
    "AdamW": ("aten::_foreach", "aten::_fused_adam", "aten::lerp", "aten::addcmul", "aten::addcdiv", "aten::sqrt"),
    "activations": ("aten::threshold", "aten::relu", "aten::clamp_min", "aten::_softmax"),
    "context to candidates and back": ("aten::index", "aten::index_select", "aten::index_add"),
    "adding and copying": (
        "aten::add",
        "aten::copy_",
        "aten::cat",
        "aten::sum",
        "aten::fill_",
        "aten::zero_",
        "aten::mul",
    ),
}


@dataclass(frozen=True)
class StepSpeed:
    """One line of the table: milliseconds are medians over interleaved repeats."""

    rows_per_table: int
    candidates_per_request: int
    ours_ms: float
    plain_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


class PlainMMoE(nn.Module):
    """The MMoE of benchmarks/speed/synthetic.py as one would first write it, on flat rows."""

    def __init__(self, described: Spec, rows: int) -> None:
        super().__init__()
        names = [*described.context, *described.candidates]
        experts, widths, tower = 8, (256, 128), 64
        width = len(names) * synthetic.DIM
        self.tables = nn.ModuleDict({name: nn.Embedding(rows, synthetic.DIM) for name in names})
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, widths[0]), nn.ReLU(), nn.Linear(widths[0], widths[1]), nn.ReLU())
            for _ in range(experts)
        )
        self.gates = nn.ModuleDict({task: nn.Linear(width, experts) for task in described.tasks})
        self.towers = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(widths[1], tower), nn.ReLU(), nn.Linear(tower, 1))
                for task in described.tasks
            }
        )

    def forward(self, batch: RequestBatch) -> dict[str, Tensor]:
        """Logits by task."""
        flat = {name: ids[batch.owner] for name, ids in batch.context.items()} | dict(batch.candidates)
        x = torch.cat([self.tables[name](ids) for name, ids in flat.items()], 1)
        expert_NEH = torch.stack([expert(x) for expert in self.experts], 1)
        out = {}
        for task, gate in self.gates.items():
            mixed = (gate(x).softmax(-1).unsqueeze(-1) * expert_NEH).sum(1)
            out[task] = self.towers[task](mixed).squeeze(-1)
        return out


def bench(*, sizes: Sequence[tuple[int, int]], repeats: int, progress: Progress) -> dict[str, Any]:
    """Rows for every (rows per table, candidates per request), and where our step spends its time at each."""
    rows, shares = [], []
    progress.start("bench train", len(sizes) * repeats)
    for table_rows, per_request in sizes:
        described = synthetic.spec(table_rows)
        batch = synthetic.batch(
            described,
            rows=table_rows,
            candidates=CANDIDATES // per_request * per_request,
            per_request=per_request,
            seed=1,
        )
        fit = new_fit(described, synthetic.preprocessor(described))
        ours, plain = _ours(fit, described, batch), _plain(described, table_rows, batch)
        rows.append(StepSpeed(table_rows, per_request, **_measured(ours, plain, repeats, progress)))
        shares.append({"rows_per_table": table_rows, "candidates_per_request": per_request, **_shares(ours)})
    return {
        "candidates": CANDIDATES,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": rows,
        "shares": shares,
    }


def _ours(fit: Fit, described: Spec, batch: RequestBatch) -> Callable[[], object]:
    return lambda: step(fit, described, batch)


def _plain(described: Spec, rows: int, batch: RequestBatch) -> Callable[[], object]:
    model = PlainMMoE(described, rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=described.train.lr)

    def step() -> None:
        optimizer.zero_grad()
        task_losses.total(
            task_losses.task_losses(model(batch), batch.labels, described.tasks), described.tasks
        ).backward()
        optimizer.step()

    return step


def _measured(
    ours: Callable[[], object], plain: Callable[[], object], repeats: int, progress: Progress
) -> dict[str, float]:
    """Interleaved, so that whatever else the machine does falls on both."""
    ours()
    plain()
    pairs = []
    for _ in range(repeats):
        pairs.append((seconds(ours), seconds(plain)))
        progress.advance(1)
    ratios = sorted(b / a for a, b in pairs)
    return {
        "ours_ms": statistics.median(a for a, _ in pairs) * 1e3,
        "plain_ms": statistics.median(b for _, b in pairs) * 1e3,
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
    }


def seconds(work: Callable[[], object]) -> float:
    """How long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _shares(work: Callable[[], object], *, steps: int = 3) -> dict[str, float]:
    """Share of a step's processor time by kind of kernel."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(steps):
            work()
    spent: dict[str, float] = {}
    for event in profiled.key_averages():
        place = next((p for p, starts in _PLACES.items() if event.key.startswith(starts)), "everything else")
        spent[place] = spent.get(place, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {place: spent.get(place, 0.0) / total for place in (*_PLACES, "everything else")}
