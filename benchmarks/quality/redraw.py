"""Tables kept over epochs against tables drawn anew in each (`train.tables`), on KuaiRand, Census-Income, the shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import difference, mean, spread, values

TASKS: Mapping[str, tuple[str, ...]] = {
    "kuairand": ("click", "long_view", "like"),
    "census": ("income", "never_married"),
    "shop": ("click", "buy"),
}
KEEP, REDRAW = 'train.tables="keep"', 'train.tables="redraw"'
RATES = {"kuairand": (0.005, 0.02)}  # of tables: at a quarter of the default, kept ones overfit more slowly
FIGURES = {"auc": "AUC", "normalised_entropy": "NE"}


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Every data set with both, at its table rate or at several."""
    every = []
    for name, data in data_of.items():
        for rate in RATES.get(name, (data.spec.train.table_lr,)):
            for how, overrides in (("keep", KEEP), ("redraw", REDRAW)):
                every.append(Variant(f"{name}: {how} at {rate:g}", (overrides, f"train.table_lr={rate}"), name))
    return every


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """The tables of docs/measured/redraw.md."""
    of = {name: {row: r for row, r in results.items() if row.startswith(f"{name}:")} for name in data_of}
    return PageContent(
        tables={name: quality(of[name], TASKS[name]) for name in data_of}
        | {"against": against(of), "sizes": tables.sizes(results)},
    )


def quality(results: Results, outputs: Sequence[str]) -> str:
    """AUC and normalised entropy (NE) of every task, and their means over tasks."""
    lines = [
        [
            row.partition(": ")[2],
            *(spread(values(trainings, name, figure)) for figure in FIGURES for name in outputs),
            *(spread(averages(trainings, outputs, figure)) for figure in FIGURES),
        ]
        for row, trainings in results.items()
    ]
    titles = [f"{title} of `{name}`" for title in FIGURES.values() for name in outputs]
    return table(["", *titles, *(f"mean {title}" for title in FIGURES.values())], lines)


def against(of: Mapping[str, Results]) -> str:
    """Redrawn minus kept, seed by seed, of the means over tasks."""
    lines = []
    for name, results in of.items():
        for row, trainings in results.items():
            kept = results.get(row.replace("redraw", "keep"))
            if "redraw" in row and kept:
                gains = [
                    difference(averages(trainings, TASKS[name], figure), averages(kept, TASKS[name], figure))
                    for figure in FIGURES
                ]
                lines.append(
                    [row.replace("redraw at", "table_lr"), *("n/a" if gain is None else str(gain) for gain in gains)]
                )
    return table(["redraw minus keep, mean of the tasks", *FIGURES.values()], lines)


def averages(trainings: Sequence[Mapping[str, Any]], outputs: Sequence[str], figure: str) -> list[float | None]:
    """The mean of a figure over tasks, seed by seed."""
    by_task = [values(trainings, name, figure) for name in outputs]
    return [mean(of_seed) for of_seed in zip(*by_task, strict=True)]


SPECS = CHECKOUT / "specs"
STEPS = "batch = 4096, lr = 0.001"  # larger and shorter steps than the default's
SUITE = Suite(
    specs={name: SPECS / f"{name}.toml" for name in TASKS},
    seeds=3,
    rows=rows,
    page=page,
    changes={  # neither refit nor averaged: the tables alone are compared
        "kuairand": (f"train={{ epochs = 12, {STEPS} }}",),
        "census": (f"train={{ {STEPS} }}", 'model={ name = "mmoe" }'),
        "shop": (f"train={{ {STEPS} }}",),
    },
)
