"""Metrics and gate health of a report as tables of text, titles and rows, for the terminal and for report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLASSIFICATION = {  # key of report.json: title, format
    "auc": ("AUC", ".4f"),
    "gauc": ("GAUC", ".4f"),
    "gauc_excluded": ("excluded", ".1%"),
    "log_loss": ("log loss", ".4f"),
    "normalised_entropy": ("NE", ".4f"),
    "calibration": ("calibration", ".3f"),
    "base_rate": ("base rate", ".4f"),
    "candidates": ("candidates", ",d"),
    "positives": ("positives", ",d"),
}


REGRESSION = {
    "concordance": ("concordance", ".4f"),
    "grouped_concordance": ("grouped", ".4f"),
    "groups_excluded": ("excluded", ".1%"),
    "mae": ("MAE", ".4g"),
    "rmse": ("RMSE", ".4g"),
    "normalised_error": ("error", ".4f"),
    "calibration": ("calibration", ".3f"),
    "mean_label": ("mean", ".4g"),
    "candidates": ("candidates", ",d"),
}


_DAILY = {
    "auc": (("auc", "AUC"), ("normalised_entropy", "NE")),
    "concordance": (("concordance", "concordance"), ("normalised_error", "error")),
}


def figure(value: float | None, form: str) -> str:
    """A metric as text, n/a where it is undefined.

    >>> figure(0.75, ".2f"), figure(None, ".2f")
    ('0.75', 'n/a')
    """
    return "n/a" if value is None else format(int(value) if form.endswith("d") else value, form)


def metric_tables(outputs: Mapping[str, Mapping[str, Any]]) -> list[tuple[list[str], list[list[str]]]]:
    """Metrics of all outputs as tables, titles and rows: classifications in one, regressions in another.

    An output whose figures are by sample weights says so.
    """
    tables = []
    for first, figures in (("auc", CLASSIFICATION), ("concordance", REGRESSION)):
        rows = [
            [
                f"{name} (weighted)" if "sample_weight" in values else name,
                *(figure(values.get(key), form) for key, (_, form) in figures.items()),
            ]
            for name, values in outputs.items()
            if first in values
        ]
        if rows:
            tables.append((["output", *(title for title, _ in figures.values())], rows))
    return tables


def day_table(daily: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: every day of a progressive run, with AUC and NE of each output, or those of a regression."""
    columns = [
        (output, key, title)
        for output, values in (daily[0]["evaluated"] if daily else {}).items()
        for key, title in _DAILY["auc" if "auc" in values else "concordance"]
    ]
    rows = [
        [
            entry["day"],
            figure(entry["candidates"], ",d"),
            *(figure(entry["evaluated"][output].get(key), ".4f") for output, key, _ in columns),
        ]
        for entry in daily
    ]
    return ["day", "candidates", *(f"{output} {title}" for output, _, title in columns)], rows


def remarks_of(outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The remarks on the metrics of a report, in the order of its outputs."""
    return [text for figures in outputs.values() for text in figures["remarks"]]


def name_of(number: int, level: Mapping[str, Any], gates: Mapping[str, Any]) -> str:
    """The number of the level, and the name of its gates where it has several.

    >>> name_of(2, {"gates": [{"name": "gates"}]}, {"name": "gates"})
    '2'
    """
    return str(number) if len(level["gates"]) == 1 else f"{number} {gates['name']}"


def health_tables(health: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The gates and the experts of all levels as tables: caption, titles, rows."""
    gates, experts = [], []
    for number, level in enumerate(health["levels"], 1):
        taken = {of["expert"]: of for part in level["gates"] for of in part["taken"]}
        for part in level["gates"]:
            own = {of["task"]: of for of in part["own"]}
            for row, weights, entropy in zip(part["rows"], part["weights"], part["entropy"], strict=True):
                visible = {e: w for e, w in zip(part["experts"], weights, strict=True) if w is not None}
                most = max(visible, key=visible.__getitem__)
                shares = [figure(own.get(row, {}).get(key), ".1%") for key in ("share", "even")]
                where = name_of(number, level, part)
                gates.append([where, row, figure(entropy, ".3f"), most, f"{visible[most]:.1%}", *shares])
        for expert in level["experts"]:
            by = taken.get(expert["expert"])
            held = [by["by"], f"{by['share']:.1%}"] if by else ["", ""]
            experts.append([str(number), expert["expert"], f"{expert['near_zero']:.1%}", *held])
    return [
        ("gates", ["level", "gate", "entropy", "most on", "weight", "own", "even"], gates),
        ("experts", ["level", "expert", "near zero", "taken by", "share"], experts),
    ]


def card_tables(data: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The data card as tables of one column per split: caption, titles, rows."""
    from features.checks import data_card as cards

    return cards.tables(data)
