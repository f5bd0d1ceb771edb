"""Gate health: how a trained model's gates weigh its experts, and three anomalies with their thresholds.

    collapse      nearly all activations of an expert are zero; no task learns from it
    degradation   one task has nearly all the gate weight of a shared expert
    underfitting  the gate of a sparse task gives its own experts little weight; they are hardly trained

Measured by forward hooks on the modules Gates and Experts of rec/modules, as sums over batches: memory does not grow
with the data. The names are those of Wang et al., HoME, KDD 2025, section 1.
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

# an activation counts as zero below this share of the root mean square of all experts of its level:
# a gate would have to weigh it a hundredfold for it to matter
NEAR_ZERO = 0.01
# ReLU leaves about half of an expert's activations at zero; HoME reports more than nine tenths where training failed
COLLAPSE = 0.9
# an even share is a half with two tasks, a tenth with ten
DEGRADATION = 0.9
# an expert whose largest gate weight is below this is unused, which is not degradation
UNUSED = 0.01
# relative to an even gate, because a gate sees few other experts in CGC and many in AdaTT
UNDERFITTING = 0.25


@dataclass
class GateSums:
    """Sums over candidates of one Gates module: weights [G, E], entropies [G], and the number of candidates."""

    rows: Sequence[str]
    owners: Sequence[str]
    hidden: Tensor
    weights: Tensor
    entropy: Tensor
    candidates: int = 0

    @classmethod
    def of(cls, gates: Gates, gate_NGE: Tensor) -> GateSums:
        """Zeros for gates with this output."""
        zeros = torch.zeros(gate_NGE.shape[1:], dtype=torch.float64, device=gate_NGE.device)
        return cls(gates.rows, gates.owners, gates.hidden, zeros, zeros.sum(1))

    def add(self, gate_NGE: Tensor) -> None:
        """Add a batch."""
        self.weights += gate_NGE.sum(0, dtype=torch.float64)
        self.entropy += torch.special.entr(gate_NGE).sum((0, 2), dtype=torch.float64)
        self.candidates += len(gate_NGE)


@dataclass
class ExpertSums:
    """Sums over candidates of one Experts module: activations near zero [E], and activations per expert."""

    owners: Sequence[str]
    near_zero: Tensor
    activations: int = 0

    @classmethod
    def of(cls, experts: Experts, expert_ENH: Tensor) -> ExpertSums:
        """Zeros for experts with this output."""
        return cls(experts.owners, torch.zeros(len(expert_ENH), dtype=torch.int64, device=expert_ENH.device))

    def add(self, expert_ENH: Tensor) -> None:
        """Add a batch."""
        small = NEAR_ZERO * expert_ENH.square().mean().sqrt()
        self.near_zero += (expert_ENH.abs() <= small).sum((1, 2))
        self.activations += expert_ENH[0].numel()


# by the path of the module, in the order in which modules first ran
Sums = dict[str, GateSums | ExpertSums]


@contextmanager
def watched(model: nn.Module) -> Iterator[Sums]:
    """Context manager: gate and expert sums over every batch that the model runs inside the block."""
    sums: Sums = {}
    handles = [
        part.register_forward_hook(_hook(sums, path))
        for path, part in model.named_modules()
        if isinstance(part, Gates | Experts)
    ]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def _hook(sums: Sums, path: str) -> Any:
    def hook(part: nn.Module, _inputs: Any, out: Tensor) -> None:
        if path not in sums:
            assert isinstance(part, Gates | Experts)
            sums[path] = GateSums.of(part, out) if isinstance(part, Gates) else ExpertSums.of(part, out)
        if out.numel():
            sums[path].add(out.detach())

    return hook


def report(sums: Sums, positives: Mapping[str, int]) -> dict[str, Any] | None:
    """The health section of report.json, given the positives of each task; None for a model without gates."""
    if not any(isinstance(of_module, GateSums) and of_module.candidates for of_module in sums.values()):
        return None
    by_level: dict[str, Sums] = {}
    for path, of_module in sums.items():
        by_level.setdefault(_split(path)[0], {})[path] = of_module
    levels = [
        {
            "experts": _experts([of_module for of_module in parts.values() if isinstance(of_module, ExpertSums)]),
            "gates": [
                {"name": _split(path)[1], **_gates(of_module, positives)}
                for path, of_module in parts.items()
                if isinstance(of_module, GateSums)
            ],
        }
        for parts in by_level.values()
    ]
    anomalies = list(findings(levels, positives))
    return {"levels": levels, "findings": anomalies, "passed": passed(levels, positives, anomalies)}


def _split(path: str) -> tuple[str, str]:
    """A module's level and its name in it: modules of a level differ in their last name only.

    >>> _split("levels.0.experts"), _split("experts.0"), _split("experts")
    (('levels.0', 'experts'), ('0', 'experts'), ('', 'experts'))
    """
    parts = path.split(".")
    last = max(index for index, part in enumerate(parts) if not part.isdigit())
    return ".".join(parts[:last] + parts[last + 1 :]), parts[last]


def named(owners: Sequence[str]) -> list[str]:
    """Names of experts: the owner and a number.

    >>> named(["click", "(shared)", "(shared)"])
    ['click 1', '(shared) 1', '(shared) 2']
    """
    counts: Counter[str] = Counter()
    names = []
    for owner in owners:
        counts[owner] += 1
        names.append(f"{owner} {counts[owner]}")
    return names


def _experts(parts: Sequence[ExpertSums]) -> list[dict[str, Any]]:
    """The share of near-zero activations of every expert of a level."""
    names = named([owner for sums in parts for owner in sums.owners])
    shares = [share for sums in parts for share in (sums.near_zero / max(1, sums.activations)).tolist()]
    return [{"expert": name, "near_zero": share} for name, share in zip(names, shares, strict=True)]


def _gates(sums: GateSums, positives: Mapping[str, int]) -> dict[str, Any]:
    """Mean weights and entropy of every gate, the largest share of each shared expert, and weights on own experts."""
    hidden, means = sums.hidden.tolist(), (sums.weights / sums.candidates).tolist()
    weights = [
        [None if h else w for h, w in zip(hides, row, strict=True)] for hides, row in zip(hidden, means, strict=True)
    ]
    entropy = []
    for total, row in zip(sums.entropy.tolist(), weights, strict=True):
        experts = sum(w is not None for w in row)
        entropy.append(total / sums.candidates / math.log(experts) if experts > 1 else None)
    # where gates feed the experts of a next level, several rows may have one owner
    return {
        "rows": list(sums.rows) if len(set(sums.rows)) == len(sums.rows) else named(sums.rows),
        "experts": named(sums.owners),
        "weights": weights,
        "entropy": entropy,
        "taken": list(_taken(sums, weights, positives)),
        "own": list(_own(sums, weights, positives)),
    }


def _taken(
    sums: GateSums, weights: Sequence[Sequence[float | None]], tasks: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """For every shared expert that two or more gates see: the gate with the largest share of its weight."""
    for index, (name, owner) in enumerate(zip(named(sums.owners), sums.owners, strict=True)):
        weight_of = {
            row: weight
            for row, of_row in zip(sums.rows, weights, strict=True)
            if row != owner and (weight := of_row[index]) is not None
        }
        if owner in tasks or len(weight_of) < 2:
            continue
        most = max(weight_of, key=weight_of.__getitem__)
        total = sum(weight_of.values())
        share = weight_of[most] / total if total else 0.0
        yield {"expert": name, "by": most, "share": share, "weight": weight_of[most], "gates": len(weight_of)}


def _own(
    sums: GateSums, weights: Sequence[Sequence[float | None]], tasks: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """For every task that sees other experts besides its own: the weight on its own, and that of a uniform gate."""
    for row, of_row in zip(sums.rows, weights, strict=True):
        visible = {index: weight for index, weight in enumerate(of_row) if weight is not None}
        own = [weight for index, weight in visible.items() if sums.owners[index] == row]
        if row in tasks and 0 < len(own) < len(visible):
            yield {"task": row, "experts": len(own), "share": sum(own), "even": len(own) / len(visible)}


def _sparse(positives: Mapping[str, int]) -> set[str]:
    """Tasks with fewer positives than the mean task."""
    return {task for task, count in positives.items() if count * len(positives) < sum(positives.values())}


def findings(levels: Sequence[Mapping[str, Any]], positives: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """The anomalies above their thresholds, as `{"anomaly", "level", "text"}`."""
    sparse = _sparse(positives)
    for number, level in enumerate(levels, 1):
        for anomaly, text in (*_collapsed(level), *_degraded(level), *_underfitted(level, sparse)):
            yield {"anomaly": anomaly, "level": number, "text": f"level {number}: {text} ({anomaly})"}


def passed(
    levels: Sequence[Mapping[str, Any]], positives: Mapping[str, int], anomalies: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The anomalies that were checked for and not found: "gates click, buy: no expert collapse".

    Anomalies that a model cannot have are left out: no shared experts, or no sparse task with experts of its own.
    """
    sparse = _sparse(positives)
    looked_at = {
        "collapse": [row for level in levels if level["experts"] for gates in level["gates"] for row in gates["rows"]],
        "degradation": [row for level in levels for gates in level["gates"] if gates["taken"] for row in gates["rows"]],
        "underfitting": [
            own["task"] for level in levels for gates in level["gates"] for own in gates["own"] if own["task"] in sparse
        ],
    }
    words = {
        "collapse": "expert collapse",
        "degradation": "degradation of a shared expert",
        "underfitting": "underfitting",
    }
    crossed = {finding["anomaly"] for finding in anomalies}
    by_gates: dict[tuple[str, ...], list[str]] = {}
    for anomaly, rows in looked_at.items():
        if rows and anomaly not in crossed:
            by_gates.setdefault(tuple(dict.fromkeys(rows)), []).append(f"no {words[anomaly]}")
    return [
        f"{'gate' if len(names) == 1 else 'gates'} {', '.join(names)}: {', '.join(absent)}"
        for names, absent in by_gates.items()
    ]


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
