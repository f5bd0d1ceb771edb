"""What the gates and experts of a trained model do: how weights are spread, and three anomalies with their thresholds.

    collapse      an expert's activations are nearly all zero; nobody learns from it
    degradation   one task takes a shared expert for itself; it is shared in name only
    underfitting  a sparse task leaves its own experts alone; what they hold is not learnt

Watched through forward hooks on the modules Gates and Experts of rec/modules, as sums over batches, so that memory does
not grow with the data. The names are those of Wang et al., HoME, KDD 2025, section 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rec.modules.experts import Experts
from rec.modules.gates import Gates

# an activation counts as zero when it is so small beside the root mean square of the experts that run with it:
# it would have to be weighted a hundredfold to matter
NEAR_ZERO = 0.01
# ReLU leaves about half of an expert's activations at zero; HoME reports more than nine tenths where training failed
COLLAPSE = 0.9
# with two tasks an even share is a half, with ten a tenth: nine tenths for one of them is not sharing
DEGRADATION = 0.9
# an expert to which even its best gate gives so little is not used at all, so nobody has taken it
UNUSED = 0.01
# of what an even gate would give to the task's own experts: gates see few others in CGC and many in AdaTT
UNDERFITTING = 0.25


@dataclass
class GateSums:
    """Sums over candidates of one Gates: weights [G, E], entropies [G], and how many candidates."""

    rows: Sequence[str]
    owners: Sequence[str]
    hidden: Tensor
    weights: Tensor
    entropy: Tensor
    candidates: int = 0

    @classmethod
    def of(cls, gates: Gates, gate_NGE: Tensor) -> GateSums:
        """Nothing yet, for gates with such an output."""
        zeros = torch.zeros(gate_NGE.shape[1:], dtype=torch.float64, device=gate_NGE.device)
        return cls(gates.rows, gates.owners, gates.hidden, zeros, zeros.sum(1))

    def add(self, gate_NGE: Tensor) -> None:
        """Count a batch in."""
        self.weights += gate_NGE.sum(0, dtype=torch.float64)
        self.entropy += torch.special.entr(gate_NGE).sum((0, 2), dtype=torch.float64)
        self.candidates += len(gate_NGE)


@dataclass
class ExpertSums:
    """Sums over candidates of one Experts: activations near zero [E], and how many there are per expert."""

    owners: Sequence[str]
    near_zero: Tensor
    activations: int = 0

    @classmethod
    def of(cls, experts: Experts, expert_ENH: Tensor) -> ExpertSums:
        """Nothing yet, for experts with such an output."""
        return cls(experts.owners, torch.zeros(len(expert_ENH), dtype=torch.int64, device=expert_ENH.device))

    def add(self, expert_ENH: Tensor) -> None:
        """Count a batch in."""
        small = NEAR_ZERO * expert_ENH.square().mean().sqrt()
        self.near_zero += (expert_ENH.abs() <= small).sum((1, 2))
        self.activations += expert_ENH[0].numel()


# what the hooks have seen: sums by the path of the module, in the order in which modules first ran
Sums = dict[str, GateSums | ExpertSums]


@contextmanager
def watched(model: nn.Module) -> Iterator[Sums]:
    """Every batch the model sees inside is counted in; what comes back fills as batches pass."""
    seen: Sums = {}
    handles = [
        part.register_forward_hook(_hook(seen, path))
        for path, part in model.named_modules()
        if isinstance(part, Gates | Experts)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(seen: Sums, path: str) -> Any:
    def hook(part: nn.Module, _inputs: Any, out: Tensor) -> None:
        if path not in seen:
            assert isinstance(part, Gates | Experts)
            seen[path] = GateSums.of(part, out) if isinstance(part, Gates) else ExpertSums.of(part, out)
        if out.numel():
            seen[path].add(out.detach())

    return hook


def report(seen: Sums, positives: Mapping[str, int]) -> dict[str, Any] | None:
    """The health section of report.json, for tasks with so many positives each; None for a model without gates."""
    if not any(isinstance(sums, GateSums) and sums.candidates for sums in seen.values()):
        return None
    together: dict[str, Sums] = {}
    for path, sums in seen.items():
        together.setdefault(_split(path)[0], {})[path] = sums
    levels = [
        {
            "experts": _experts([sums for sums in parts.values() if isinstance(sums, ExpertSums)]),
            "gates": [
                {"name": _split(path)[1], **_gates(sums, positives)}
                for path, sums in parts.items()
                if isinstance(sums, GateSums)
            ],
        }
        for parts in together.values()
    ]
    return {"levels": levels, "findings": list(findings(levels, positives))}


def _split(path: str) -> tuple[str, str]:
    """The level a module is in, and what it is called there: modules of a level differ in their last name only.

    >>> _split("levels.0.experts"), _split("experts.0"), _split("experts")
    (('levels.0', 'experts'), ('0', 'experts'), ('', 'experts'))
    """
    parts = path.split(".")
    last = max(index for index, part in enumerate(parts) if not part.isdigit())
    return ".".join(parts[:last] + parts[last + 1 :]), parts[last]


def named(owners: Sequence[str]) -> list[str]:
    """Experts by their owner and a number.

    >>> named(["click", "(shared)", "(shared)"])
    ['click 1', '(shared) 1', '(shared) 2']
    """
    seen: Counter[str] = Counter()
    names = []
    for owner in owners:
        seen[owner] += 1
        names.append(f"{owner} {seen[owner]}")
    return names


def _experts(parts: Sequence[ExpertSums]) -> list[dict[str, Any]]:
    """The share of near-zero activations of every expert of a level."""
    names = named([owner for sums in parts for owner in sums.owners])
    shares = [share for sums in parts for share in (sums.near_zero / max(1, sums.activations)).tolist()]
    return [{"expert": name, "near_zero": share} for name, share in zip(names, shares, strict=True)]


def _gates(sums: GateSums, positives: Mapping[str, int]) -> dict[str, Any]:
    """Mean weights and entropies of every gate, who takes the shared experts, and who uses its own."""
    hidden, weights = sums.hidden.tolist(), (sums.weights / sums.candidates).tolist()
    seen = [
        [None if h else w for h, w in zip(hides, row, strict=True)] for hides, row in zip(hidden, weights, strict=True)
    ]
    entropy = []
    for total, row in zip(sums.entropy.tolist(), seen, strict=True):
        experts = sum(w is not None for w in row)
        entropy.append(total / sums.candidates / math.log(experts) if experts > 1 else None)
    # where gates feed the experts of a next level, rows may be called alike
    rows = list(sums.rows) if len(set(sums.rows)) == len(sums.rows) else named(sums.rows)
    found = {"rows": rows, "experts": named(sums.owners), "weights": seen, "entropy": entropy}
    return found | {"taken": list(_taken(sums, seen, positives)), "own": list(_own(sums, seen, positives))}


def _taken(
    sums: GateSums, seen: Sequence[Sequence[float | None]], tasks: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """For experts that no task owns and several others can see: who takes most of the weight they are given."""
    for index, (name, owner) in enumerate(zip(named(sums.owners), sums.owners, strict=True)):
        given = {
            row: weight
            for row, weights in zip(sums.rows, seen, strict=True)
            if row != owner and (weight := weights[index]) is not None
        }
        if owner in tasks or len(given) < 2:
            continue
        most = max(given, key=given.__getitem__)
        total = sum(given.values())
        share = given[most] / total if total else 0.0
        yield {"expert": name, "by": most, "share": share, "weight": given[most], "gates": len(given)}


def _own(sums: GateSums, seen: Sequence[Sequence[float | None]], tasks: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """For tasks that see their own experts beside others: the weight on their own, and what an even gate would give."""
    for row, weights in zip(sums.rows, seen, strict=True):
        visible = {index: weight for index, weight in enumerate(weights) if weight is not None}
        own = [weight for index, weight in visible.items() if sums.owners[index] == row]
        if row in tasks and 0 < len(own) < len(visible):
            yield {"task": row, "experts": len(own), "share": sum(own), "even": len(own) / len(visible)}


def findings(levels: Sequence[Mapping[str, Any]], positives: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Every threshold that is crossed, as `{"anomaly", "level", "text"}`.

    A task is sparse when it has fewer positives than the mean task.
    """
    sparse = {task for task, count in positives.items() if count * len(positives) < sum(positives.values())}
    for number, level in enumerate(levels, 1):
        for anomaly, text in (*_collapsed(level), *_degraded(level), *_underfitted(level, sparse)):
            yield {"anomaly": anomaly, "level": number, "text": f"level {number}: {text} ({anomaly})"}


def _collapsed(level: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for expert in level["experts"]:
        if expert["near_zero"] > COLLAPSE:
            yield "collapse", f"{expert['near_zero']:.0%} of what expert {expert['expert']!r} gives is nearly zero"


def _degraded(level: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for gates in level["gates"]:
        for taken in gates["taken"]:
            if taken["share"] > DEGRADATION and taken["weight"] > UNUSED:
                text = f"takes {taken['share']:.0%} of the weight that {taken['gates']} gates give to"
                yield "degradation", f"{taken['by']!r} {text} shared expert {taken['expert']!r}"


def _underfitted(level: Mapping[str, Any], sparse: Collection[str]) -> Iterator[tuple[str, str]]:
    for gates in level["gates"]:
        for own in gates["own"]:
            if own["task"] in sparse and own["share"] < UNDERFITTING * own["even"]:
                experts = "expert" if own["experts"] == 1 else f"{own['experts']} experts"
                text = f"{own['task']!r} gives {own['share']:.0%} of its weight to its own {experts}"
                yield "underfitting", f"{text}, where an even gate would give {own['even']:.0%}"
