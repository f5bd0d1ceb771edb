"""The tables and the drawing that pages of several suites have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.quality import Results, SuiteData
from benchmarks.quality.page import table
from benchmarks.quality.statistics import gain, mean, spread, standard_error, values
from pipelines.report.charts import COLOURS, FAINT, STYLE, svg


def quality(results: Results, outputs: Sequence[str], figure: str = "auc") -> str:
    """A row per row of the suite: a figure of every output, mean and deviation, the best mean in bold."""
    best = {name: _best(results, name, figure) for name in outputs}
    rows = [
        [row, *(_bold(spread(values(trainings, name, figure)), row in best[name]) for name in outputs)]
        for row, trainings in results.items()
    ]
    return table(["", *(f"`{name}`" for name in outputs)], rows)


def against(results: Results, reference: str, outputs: Sequence[str], figure: str = "auc") -> str:
    """Every row minus the reference, seed by seed: mean and 95% interval, bold where the interval leaves out 0."""
    rows = []
    for row, trainings in results.items():
        if row != reference and reference in results:
            gains = [gain(trainings, results[reference], name, figure) for name in outputs]
            rows.append([row, *(str(apart or "n/a") for apart in gains)])
    return table([f"minus {reference}", *(f"`{name}`" for name in outputs)], rows)


def sizes(results: Results) -> str:
    """What every row holds, where it stopped, and how long an epoch took, which is for orientation only."""
    rows = [
        [
            row,
            *(f"{trainings[0]['weights'][kind]:,}" for kind in ("dense", "tables")),
            spread([float(training["best"]) for training in trainings], ".1f"),
            f"{_seconds(trainings):.1f}",
        ]
        for row, trainings in results.items()
    ]
    return table(["", "weights above the tables", "weights in tables", "best epoch", "seconds per epoch"], rows)


def base_rates(data: SuiteData, results: Results, outputs: Sequence[str]) -> str:
    """How often each task happens in every split, and what that says about an AUC on the test split."""
    counts = data.card["counts"]
    rows = []
    for name in outputs:
        cells = []
        for split in ("train", "validation", "test"):
            observed, positives = counts[split]["observed"][name], counts[split]["positives"][name]
            cells.append(f"{positives:,} of {observed:,} ({positives / max(1, observed):.2%})")
        aucs = [value for trainings in results.values() if (value := mean(values(trainings, name, "auc"))) is not None]
        test = counts["test"]
        error = "n/a"
        if aucs and test["positives"][name]:
            positives = test["positives"][name]
            error = f"{standard_error(max(aucs), positives, test['observed'][name] - positives):.4f}"
        rows.append([f"`{name}`", *cells, error])
    return table(["", "train", "validation", "test", "standard error of its AUC"], rows)


def dots(results: Results, outputs: Sequence[str], reference: str, figure: str = "auc") -> str:
    """Every row's figure of every output: a dot per seed, a bar at the mean, a line at the reference's mean.

    Without popularity, whose distance would push all others together.
    """
    names = [row for row in results if row != "popularity"]
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(2.0 + 2.3 * len(outputs), 0.9 + 0.24 * len(names)), layout="constrained")
        panels = drawn.subplots(1, len(outputs), sharey=True, squeeze=False)[0]
        for axes, output in zip(panels, outputs, strict=True):
            for y, name in enumerate(names):
                points = [math.nan if value is None else value for value in values(results[name], output, figure)]
                axes.plot(points, [y] * len(points), "o", color=COLOURS[0], markersize=3.5, alpha=0.5)
                middle = mean([None if math.isnan(value) else value for value in points])
                if middle is not None:
                    axes.plot([middle], [y], "|", color=COLOURS[1], markersize=11, markeredgewidth=2)
                    if name == reference:
                        axes.axvline(middle, color=FAINT, linestyle="--", zorder=0)
            axes.set(title=output)
            axes.grid(visible=True, axis="y")
            axes.tick_params(axis="x", labelrotation=30)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        return svg(drawn)


def of_models(results: Results, outputs: Sequence[str], models: Mapping[str, str], what: str) -> dict[str, str]:
    """For every model the rows that show it, for the page of the model; `models` is the model of each row."""
    tables: dict[str, str] = {}
    for model in dict.fromkeys(models[row] for row in results):
        own = {row: trainings for row, trainings in results.items() if models[row] == model}
        tables[model] = f"{what}\n\n{quality_plain(own, outputs)}"
    return tables


def quality_plain(results: Results, outputs: Sequence[str], figure: str = "auc") -> str:
    """As `quality`, with nothing in bold."""
    rows = [[row, *(spread(values(trainings, name, figure)) for name in outputs)] for row, trainings in results.items()]
    return table(["", *(f"`{name}`" for name in outputs)], rows)


def _best(results: Results, output: str, figure: str) -> list[str]:
    means = {row: middle for row, trainings in results.items() if (middle := mean(values(trainings, output, figure)))}
    return [row for row, middle in means.items() if middle == max(means.values())]


def _bold(text: str, bold: bool) -> str:  # noqa: FBT001 - a word beside a word
    return f"**{text}**" if bold else text


def _seconds(trainings: Sequence[Mapping[str, Any]]) -> float:
    seconds = [entry["seconds"] for training in trainings for entry in training["epochs"]]
    return sum(seconds) / len(seconds)
