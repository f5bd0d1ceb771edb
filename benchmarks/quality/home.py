"""HoME's anomalies, measured: zero activations, collapsed gates, underfitting experts of sparse tasks.

MMoE and PLE with ReLU, both with normalised experts and Swish, and HoME: whole, without its parts, with each alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, kuairand, model, models, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import spread
from benchmarks.speed import equal_size

PLAIN = {"normalise": False, "activation": "relu"}
NORMALISED = {"normalise": True, "activation": "swish"}
NONE = {**PLAIN, "mask": False, "feature_gates": 0, "self_gates": False}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "mmoe": ("mmoe", PLAIN),
    "mmoe, normalised": ("mmoe", NORMALISED),
    "ple": ("ple", PLAIN),
    "ple, normalised": ("ple", NORMALISED),
    "home, no part": ("home", NONE),
    "home, normalised alone": ("home", {**NONE, **NORMALISED}),
    "home, mask alone": ("home", {**NONE, "mask": True}),
    "home, gates alone": ("home", {**NONE, "feature_gates": 2, "self_gates": True}),
    "home": ("home", NORMALISED),
}
REFERENCE = "home, no part"


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Every form, scaled to the same size."""
    sides, every = models.sides(data_of[""]), models.settings_of(len(kuairand.TASKS), kuairand.GROUPS)
    size = models.size(data_of[""])
    variants = []
    for row, (name, changed) in FORMS.items():
        settings = {**every[name], "tower_widths": models.TOWER, "dropout": 0.2, **changed}
        variants.append(Variant(row, (model(equal_size.fitted_to(settings, **sides, parameters=size)),)))
    return variants


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """Tables and a drawing of docs/measured/home.md, and a table for the page of HoME."""
    what = "KuaiRand-Pure, six tasks, test AUC of HoME and of its parts ([how](../measured/home.md)):"
    own = {row: trainings for row, trainings in results.items() if row.startswith("home")}
    return PageContent(
        tables={
            "rates": tables.base_rates(data_of[""], results, kuairand.TASKS),
            "health": health(results),
            "findings": findings(results),
            "auc": tables.quality(results, kuairand.TASKS),
            "against": tables.against(results, REFERENCE, kuairand.TASKS),
            "sizes": tables.sizes(results),
        },
        plots={"home.svg": tables.dots(results, kuairand.TASKS, REFERENCE)},
        models={"home": f"{what}\n\n{tables.quality_plain(own, kuairand.TASKS)}"} if own else {},
    )


def health(results: Results) -> str:
    """Near-zero activations, gate concentration, and sparse tasks' weight on their own experts, over seeds."""
    measures: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "activations near zero, mean expert": lambda health_section: _mean(
            [e["near_zero"] for e in _experts(health_section)]
        ),
        "the same, worst expert": lambda health_section: max(
            (e["near_zero"] for e in _experts(health_section)), default=None
        ),
        "entropy of the gates (1 is even)": lambda health_section: _mean(
            [e for g in _gates(health_section) for e in g["entropy"]]
        ),
        "largest weight of a gate on one expert": lambda health_section: max(_largest(health_section), default=None),
        "a sparse task's weight on its own experts, of an even share": _own,
        "largest share of a shared expert taken by one task": _taken,
    }
    rows = [
        [
            row,
            *(
                spread([measure(training["report"]["health"]) for training in health_section], ".2f")
                for measure in measures.values()
            ),
        ]
        for row, health_section in results.items()
    ]
    return table(["", *measures], rows)


def findings(results: Results) -> str:
    """How often each of the three anomalies crossed its threshold, per training."""
    kinds = ("collapse", "degradation", "underfitting")
    rows = []
    for row, trainings in results.items():
        named = [finding["anomaly"] for training in trainings for finding in training["report"]["health"]["findings"]]
        rows.append([row, *(f"{named.count(kind) / len(trainings):.1f}" for kind in kinds)])
    return table(["findings per training", *kinds], rows)


def _experts(health_section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [expert for level in health_section["levels"] for expert in level["experts"]]


def _gates(health_section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [gates for level in health_section["levels"] for gates in level["gates"]]


def _largest(health_section: Mapping[str, Any]) -> Iterator[float]:
    """The largest mean weight of every gate that sees several experts."""
    for gates in _gates(health_section):
        for weights in gates["weights"]:
            visible = [weight for weight in weights if weight is not None]
            if len(visible) > 1:
                yield max(visible)


def _own(health_section: Mapping[str, Any]) -> float | None:
    """Sparse tasks' weight on their own experts relative to a uniform gate: 1 is uniform."""
    shares = [
        own["share"] / own["even"]
        for gates in _gates(health_section)
        for own in gates["own"]
        if own["task"] in kuairand.SPARSE
    ]
    return _mean(shares)


def _taken(health_section: Mapping[str, Any]) -> float | None:
    """The largest share of the weight given to a shared expert that one gate gives."""
    return max((taken["share"] for gates in _gates(health_section) for taken in gates["taken"]), default=None)


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known else None


# tables that are kept, unlike those of the spec: what HoME mends is seen where sparse tasks overfit
TRAIN = ("train={batch=1024, lr=0.001, table_lr=0.005, epochs=12}",)
SUITE = Suite(specs=kuairand.SUITE.specs, seeds=5, rows=rows, page=page, overrides=TRAIN)
