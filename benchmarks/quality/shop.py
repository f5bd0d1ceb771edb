"""The synthetic shop: errors of conversion rates against the true P(buy | click) of every candidate.

A conversion rate is learnt from clicked candidates and served for all (selection bias). The click-space rows are
trained on clicked candidates only; the others are objectives against that bias. A second shop has a hidden confounder
of click and purchase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, model, models, sharing, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import difference, spread
from pipelines.report.charts import COLOURS, INK, STYLE, svg
from rec.data import splits
from rec.data.encoders import Encoder
from rec.data.session_table import to_batch
from rec.evaluation.evaluate import Score
from rec.spec import Spec
from rec.spec.tasks import conditional, happened
from rec.training.run import load_score

CHILD, PARENT = "buy", "click"
OUTPUTS = (PARENT, CHILD, conditional(CHILD, PARENT))
REFERENCE = "click space"
HIDDEN = "hidden: "
DRAWN = (REFERENCE, "esmm", "escm2_ips", "escm2_dr", "aitm", "dcmt")
PARTS = ("all", "clicked", "unclicked")
FIGURES = {"bias": "bias", "absolute": "absolute error", "divergence": "divergence"}
DECILES = 10
MMOE = {"name": "mmoe", "experts": 4, "expert_widths": [64, 32], "tower_widths": [32]}
SINGLE_TASK = {"name": "single_task", "tables": "own", "bottom_widths": [128, 32], "tower_widths": [32]}
SHARING = ((REFERENCE, f"{REFERENCE}, alone"), ("esmm", "esmm, alone"), ("esmm", "gbdt"))
CLICKS_ONLY = f'tasks.{CHILD}.space="parent"'


@dataclass(frozen=True)
class Compared:
    """Served and true P(child | parent), true P(parent), and whether the parent happened: [N] each."""

    served: np.ndarray
    truth: np.ndarray
    likely: np.ndarray
    clicked: np.ndarray


def compared(spec: Spec, rows: Iterable[pa.RecordBatch], encoders: Mapping[str, Encoder], score: Score) -> Compared:
    """Every candidate's conditional probability beside the truth, which the rows carry as `p_click` and `p_buy`."""
    parts: list[tuple[np.ndarray, ...]] = []
    for block in rows:
        batch = to_batch(block, spec, encoders)
        shown = pc.list_flatten(block["candidates"])
        click, buy = (pc.struct_field(shown, f"p_{name}").to_numpy() for name in (PARENT, CHILD))
        served = score(batch)[conditional(CHILD, PARENT)] if len(batch) else click
        parts.append((served.astype(np.float64), buy / click, click, happened(batch.labels[PARENT])))
    return Compared(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def errors(served: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean error, mean absolute error, and mean divergence KL(truth, served) in nats of probabilities [N].

    >>> errors(np.array([0.5, 0.25]), np.array([0.25, 0.25]))["bias"]
    0.125
    """
    served = served.clip(1e-7, 1 - 1e-7)
    divergence = truth * np.log(truth / served) + (1 - truth) * np.log((1 - truth) / (1 - served))
    return {
        "candidates": len(truth),
        "truth": float(truth.mean()),
        "served": float(served.mean()),
        "bias": float((served - truth).mean()),
        "absolute": float(np.abs(served - truth).mean()),
        "divergence": float(divergence.mean()),
    }


def by_decile(candidates: Compared) -> list[dict[str, float]]:
    """Errors by decile of the true click probability."""
    order = np.argsort(candidates.likely, kind="stable")
    return [
        {"likely": float(candidates.likely[part].mean()), **errors(candidates.served[part], candidates.truth[part])}
        for part in np.array_split(order, DECILES)
        if len(part)
    ]


def measure(run: Path, data: Path) -> dict[str, Any]:
    """Errors of a run's P(buy | click) on the test split, over all, clicked and unclicked candidates and by decile."""
    spec, learnt, score = load_score(run)
    candidates = compared(spec, splits.read(data, "test", spec), learnt.encoders, score)
    where = dict(zip(PARTS, (np.ones_like(candidates.clicked), candidates.clicked, ~candidates.clicked), strict=True))
    by_part = {part: errors(candidates.served[rows], candidates.truth[rows]) for part, rows in where.items()}
    return {"errors": by_part, "deciles": by_decile(candidates)}


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Click space and ESMM with and without sharing, other objectives, baselines; some with hidden confounding."""
    del data_of
    every = {
        "click space, alone": (CLICKS_ONLY, model(SINGLE_TASK)),
        REFERENCE: (CLICKS_ONLY, model(MMOE)),
        "esmm, alone": (model(SINGLE_TASK),),
        "esmm": (model(MMOE),),
        **{name: (model(MMOE), f'objective={{ name = "{name}" }}') for name in DRAWN[2:]},
        "escm2_dr, joint": (model(MMOE), 'objective={ name = "escm2_dr", joint = true }'),
    }
    plain = [Variant(name, overrides, "shop") for name, overrides in every.items()]
    plain += [Variant(row.name, row.overrides, "shop") for row in models.baselines()]
    return plain + [Variant(HIDDEN + name, every[name], "hidden") for name in DRAWN[:4]]


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """Tables and the drawing of docs/measured/shop.md, and a table for the page of every objective."""
    plain = {row: trainings for row, trainings in results.items() if not row.startswith(HIDDEN)}
    hidden = {row.removeprefix(HIDDEN): trainings for row, trainings in results.items() if row.startswith(HIDDEN)}
    what = "The synthetic shop, error of P(buy | click) against the truth ([how](../measured/shop.md)):"
    own = {name: {**_of(plain, REFERENCE), **_of(plain, name)} for name in DRAWN[1:] if _of(plain, name)}
    return PageContent(
        tables={
            "rates": tables.base_rates(data_of["shop"], plain, OUTPUTS[:2]),
            "truth": against_truth(plain),
            "against": against(plain),
            "hidden": against_truth(hidden),
            "hidden-against": against(hidden),
            "auc": tables.quality(plain, OUTPUTS),
            "sharing": sharing.pairs(plain, SHARING, OUTPUTS),
            "sizes": tables.sizes(plain),
        },
        plots={"shop.svg": drawn({"the shop as it is": plain, "with something hidden": hidden})},
        models={name: f"{what}\n\n{against_truth(by_row)}" for name, by_row in own.items()},
    )


def against_truth(results: Results) -> str:
    """Bias over all, clicked and unclicked candidates, and errors over all and clicked ones."""
    columns = [(part, "bias") for part in PARTS]
    columns += [(part, figure) for figure in ("absolute", "divergence") for part in PARTS[:2]]
    lines = [
        [row, *(spread(_figures(trainings, part, figure)) for part, figure in columns)]
        for row, trainings in results.items()
    ]
    for training in [trainings[0] for trainings in results.values()][:1]:
        truths = [training["measured"]["errors"][part]["truth"] for part in PARTS]
        lines.insert(0, ["the truth itself", *(f"mean {truth:.4f}" for truth in truths), *[""] * 4])
    return table(["", *(f"{FIGURES[figure]}, {part}" for part, figure in columns)], lines)


def against(results: Results) -> str:
    """Every row minus the click-space one over all candidates, seed by seed: the size of the bias, and the errors."""
    base = results.get(REFERENCE, ())
    lines = []
    for row, trainings in results.items():
        if row != REFERENCE and base:
            gains = [difference(_sizes(trainings, figure), _sizes(base, figure)) for figure in FIGURES]
            lines.append([row, *("n/a" if gain is None else str(gain) for gain in gains)])
    return table([f"minus {REFERENCE}, all candidates", "size of the bias", *list(FIGURES.values())[1:]], lines)


def drawn(panels: Mapping[str, Results]) -> str:
    """Bias in each decile of the true click probability: a line per row, a bar of one deviation over seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, (title, results) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
            axes.axhline(0, color=INK, linewidth=0.8)
            for index, row in enumerate(name for name in DRAWN if name in results):
                bias = np.array(
                    [[decile["bias"] for decile in trainings["measured"]["deciles"]] for trainings in results[row]]
                )
                off = np.arange(1, bias.shape[1] + 1) + (index - len(DRAWN) / 2) * 0.08
                error = bias.std(0, ddof=1) if len(bias) > 1 else None
                axes.errorbar(
                    off,
                    bias.mean(0),
                    yerr=error,
                    fmt="o-",
                    label=row,
                    color=COLOURS[index],
                    markersize=3,
                    linewidth=1.2,
                )
            axes.set(title=title, xlabel="decile of the true P(click), least to most likely")
            axes.set_xticks(range(1, DECILES + 1))
            axes.grid(visible=True)
        figure.axes[0].set_ylabel("served minus true P(buy | click)")
        if figure.axes[0].lines[1:]:
            figure.axes[0].legend(frameon=False, fontsize=8)
        return svg(figure)


def _of(results: Results, name: str) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The rows of an objective."""
    return {row: trainings for row, trainings in results.items() if row.partition(",")[0] == name}


def _figures(trainings: Sequence[Mapping[str, Any]], part: str, figure: str) -> list[float | None]:
    return [training["measured"]["errors"][part][figure] for training in trainings]


def _sizes(trainings: Sequence[Mapping[str, Any]], figure: str) -> list[float | None]:
    """Over all candidates; of a bias, how far from 0 it is."""
    return [abs(training["measured"]["errors"]["all"][figure]) for training in trainings]


SPEC = CHECKOUT / "specs" / "shop.toml"
SUITE = Suite(
    specs={"shop": SPEC, "hidden": SPEC},
    seeds=3,
    rows=rows,
    page=page,
    measure="benchmarks.quality.shop:measure",
    overrides=("source.requests=24.0", "train.batch=4096", "train.lr=0.001"),
    changes={"hidden": ("source.hidden=1.0",)},
)
