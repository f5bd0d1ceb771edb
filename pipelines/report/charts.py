"""Charts of the report as SVG text: without a display or global state, and reproducible."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rec.evaluation.regression import COUNTERPARTS

INK, FAINT = "#22303c", "#c9d1d9"
COLOURS = ("#1f6feb", "#d1571b", "#1a7f37", "#8250df", "#bf3989", "#6e7781")
WEIGHTS = LinearSegmentedColormap.from_list("weights", ("#f6f8fa", COLOURS[0]))
DOTS = 50  # points of a line up to which each has a dot
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's font
    "svg.hashsalt": "multigate",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#eaeef2",
}


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Reliability diagram: predicted against observed probability with 95% intervals, and a histogram of candidates.

    For a regression, whose bins have an `error_y`: mean prediction against mean label.
    """
    filled = [b for b in bins if b["count"]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.4), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        predicted, observed = [b["mean_p"] for b in filled], [b["mean_y"] for b in filled]
        spread = [_around(b) if "error_y" in b else _interval(b["mean_y"], b["count"]) for b in filled]
        top = 1.2 * max([*predicted, *observed, 1e-6])  # a wide interval must not squeeze the points
        above.plot([0, top], [0, top], color=FAINT, linestyle="--", zorder=1)
        above.vlines(predicted, [low for low, _ in spread], [high for _, high in spread], color=COLOURS[0], alpha=0.4)
        above.plot(predicted, observed, "o-", color=COLOURS[0], markersize=4, linewidth=1)
        above.set(ylabel="observed", xlim=(0, top), ylim=(0, top))
        below.vlines(predicted, 0.8, [b["count"] for b in filled], color=COLOURS[0], linewidth=2)
        below.set(xlabel="predicted", ylabel="candidates", yscale="log", ylim=(0.8, None))
        for axes in (above, below):
            axes.grid(visible=True)
        return svg(figure)


def curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Over epochs: training loss of each task, validation NE and AUC of each output, or its regression counterparts."""
    return _curves(history, [entry["epoch"] for entry in history], over="epoch", on="validation")


def days(daily: Sequence[Mapping[str, Any]]) -> str:
    """The same over the days of a progressive run, numbered from 1, each before it was learnt from."""
    learnt = [entry for entry in daily if entry["train"] is not None]
    entries = [{"train": entry["train"], "validation": entry["evaluated"]} for entry in learnt]
    return _curves(entries, list(range(1, len(entries) + 1)), over="day", on="next-day")


def _curves(history: Sequence[Mapping[str, Any]], epochs: Sequence[int], *, over: str, on: str) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        loss, entropy, auc = figure.subplots(1, 3)
        _lines(loss, "training loss", epochs, [entry["train"]["loss"] for entry in history], axis=over)
        for axes, title, key in (
            (entropy, f"{on} normalised entropy", "normalised_entropy"),
            (auc, f"{on} AUC", "auc"),
        ):
            validations = [(entry.get("validation") or {}).items() for entry in history]
            other = COUNTERPARTS[key]
            values = [{name: of.get(key, of.get(other)) for name, of in outputs} for outputs in validations]
            regressions = any(other in of for outputs in validations for _, of in outputs)
            full = f"{title}, {other.replace('_', ' ')}" if regressions else title
            _lines(axes, full, epochs, values, axis=over)
        return svg(figure)


def watched(looks: Sequence[Mapping[str, Any]]) -> str:
    """Over the looks of watch.jsonl: the loss of each task, and which share of a step each part of it took."""
    steps = [look["step"] for look in looks]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        loss, split = figure.subplots(1, 2)
        _lines(loss, "training loss", steps, [_under("loss/", look) for look in looks], axis="step")
        seconds = [_under("seconds/", look) for look in looks]
        parts = [name for name in (seconds[0] if seconds else ()) if name != "step"]
        shares = [[100 * of.get(part, 0.0) / (of.get("step") or 1.0) for of in seconds] for part in parts]
        split.stackplot(steps, *shares, labels=parts, colors=COLOURS, linewidth=0)
        split.set(title="time of a step", xlabel="step", ylabel="%", ylim=(0, 100))
        split.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
        return svg(figure)


def gates(part: Mapping[str, Any]) -> str:
    """Mean weight of every gate (row) on every expert (column); an expert that a gate cannot see is left blank."""
    rows, experts = part["rows"], part["experts"]
    weight = [[math.nan if w is None else w for w in row] for row in part["weights"]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 0.55 * len(experts), 1.1 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.pcolormesh(weight, cmap=WEIGHTS, vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for y, row in enumerate(weight):
            for x, w in enumerate(row):
                if not math.isnan(w):
                    ink = "white" if w > 0.6 else INK
                    axes.text(x + 0.5, y + 0.5, f"{w:.2f}", ha="center", va="center", color=ink, fontsize=7)
        axes.set_xticks([x + 0.5 for x in range(len(experts))], experts, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        return svg(figure)


def _under(prefix: str, look: Mapping[str, float]) -> dict[str, float]:
    """The figures of a look whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in look.items() if name.startswith(prefix)}


def _lines(
    axes: Axes, title: str, epochs: Sequence[int], points: Sequence[Mapping[str, float | None]], *, axis: str = "epoch"
) -> None:
    for index, name in enumerate(points[0] if points else ()):
        values = [math.nan if (value := p.get(name)) is None else value for p in points]
        colour, form = COLOURS[index % len(COLOURS)], "o-" if len(epochs) <= DOTS else "-"
        axes.plot(epochs, values, form, label=name, color=colour, markersize=3, linewidth=1.3)
    axes.set(title=title, xlabel=axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)


def _interval(rate: float, count: int) -> tuple[float, float]:
    """95% confidence interval of a rate: Wilson, JASA 1927, which stays inside [0, 1] for rare events."""
    z = 1.96
    middle, base = rate + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / base), min(1.0, (middle + half) / base)


def _around(of_bin: Mapping[str, Any]) -> tuple[float, float]:
    """95% confidence interval of a bin's mean label, by the normal approximation."""
    return max(0.0, of_bin["mean_y"] - 1.96 * of_bin["error_y"]), of_bin["mean_y"] + 1.96 * of_bin["error_y"]


def svg(figure: Figure) -> str:
    """A figure as SVG text, byte for byte reproducible."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    return drawn[drawn.index("<svg") :]  # inside a page there is no XML declaration
