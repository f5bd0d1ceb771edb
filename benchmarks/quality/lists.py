"""A shop whose clicks depend on the best competitor: who finds it, and what losses over lists do.

The true P(click) of a candidate falls with the quality of the best other candidate of its request (`source.rivalry`).
A model that sees one candidate at a time cannot know of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, model, models, sharing, shop, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import difference, spread, values
from rec.data import splits
from rec.data.session_table import to_batch
from rec.training.run import load_score

PLAIN, TASK = "one at a time", "click"
NEIGHBOURS = (
    'context.size={ kind = "number", make = "size" }',
    'candidates.rank={ kind = "number", make = "rank", of = ["item_click", "item_shown", "price"] }',
    'candidates.gap={ kind = "number", make = "gap", of = ["item_click", "item_shown", "price"] }',
    'candidates.best={ kind = "number", make = "best", of = ["item_click", "item_shown"] }',
)
LAYERS = {"request": {"summaries": []}}
# row: its spec, `[model]`, and weights of losses over lists
ROWS: Mapping[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    PLAIN: ("plain", shop.MMOE, {}),
    "features": ("features", shop.MMOE, {}),
    "summaries": ("plain", shop.MMOE | {"request": {"self_attention": False}}, {}),
    "self-attention": ("plain", shop.MMOE | LAYERS, {}),
    "summaries and self-attention": ("plain", shop.MMOE | {"request": {}}, {}),
    "features and both": ("features", shop.MMOE | {"request": {}}, {}),
    "listwise 0.2": ("plain", shop.MMOE, {"listwise": 0.2}),
    "pairwise 0.2": ("plain", shop.MMOE, {"pairwise": 0.2}),
    "all of it, listwise 0.2": ("features", shop.MMOE | {"request": {}}, {"listwise": 0.2}),
    f"{PLAIN}, alone": ("plain", shop.SINGLE_TASK, {}),
    "self-attention, alone": ("plain", shop.SINGLE_TASK | LAYERS, {}),
}
SHARING = (
    (PLAIN, f"{PLAIN}, alone"),
    ("self-attention", "self-attention, alone"),
    (PLAIN, "gbdt"),
    ("features", "gbdt, features"),
    ("self-attention", "gbdt, features"),
)
FIGURES = {"auc": "AUC", "gauc": "GAUC", "normalised_entropy": "NE", "calibration": "calibration"}
MEASURED = {"ndcg": "NDCG against the truth", "divergence": "divergence from the truth"}


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Features, layers and losses, alone and together; single-task networks; the baselines, with and without them."""
    del data_of
    networks = [
        Variant(name, (model(settings), _objective(losses)), of) for name, (of, settings, losses) in ROWS.items()
    ]
    both = {"": "plain", ", features": "features"}
    return networks + [
        Variant(row.name + suffix, row.overrides, of) for suffix, of in both.items() for row in models.baselines()
    ]


def _objective(losses: Mapping[str, float]) -> str:
    return "objective={ " + ", ".join(['name = "esmm"', *(f"{key} = {value}" for key, value in losses.items())]) + " }"


def measure(run: Path, data: Path) -> dict[str, float]:
    """P(click) of the test split against the truth: NDCG inside requests, and mean KL(truth, served) in nats."""
    spec, learnt, score = load_score(run)
    parts = []
    for block in splits.read(data, "test", spec):
        batch = to_batch(block, spec, learnt.encoders)
        truth = pc.struct_field(pc.list_flatten(block["candidates"]), f"p_{TASK}").to_numpy()
        served = score(batch)[TASK].astype(np.float64) if len(batch) else truth
        parts.append((ndcg(served, truth, batch.offsets()), served, truth))
    gains = np.concatenate([part[0] for part in parts])
    served, truth = (np.concatenate([part[place] for part in parts]).clip(1e-7, 1 - 1e-7) for place in (1, 2))
    divergence = truth * np.log(truth / served) + (1 - truth) * np.log((1 - truth) / (1 - served))
    return {"ndcg": float(gains.mean()), "divergence": float(divergence.mean())}


def ndcg(score_N: np.ndarray, gain_N: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Discounted gain of the order by score over that of the best order, of every request with candidates.

    >>> ndcg(np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.array([0, 2]))
    array([1.])
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    discount = 1 / np.log2(2 + np.arange(len(owner)) - offsets[owner])
    sums = [np.bincount(owner, gain_N[np.lexsort((-by, owner))] * discount) for by in (score_N, gain_N)]
    has_candidates = np.diff(offsets)[: len(sums[0])] > 0
    return sums[0][has_candidates] / sums[1][has_candidates]


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """The tables of docs/measured/lists.md."""
    del data_of
    return PageContent(
        tables={
            "quality": quality(results),
            "against": against(results),
            "sharing": sharing.pairs(results, SHARING, [TASK]),
            "sizes": tables.sizes(results),
        }
    )


def quality(results: Results) -> str:
    """Figures of the click on the test split, and against the truth."""
    lines = [
        [
            row,
            *(spread(values(trainings, TASK, figure)) for figure in FIGURES),
            *(spread(_measured(trainings, figure)) for figure in MEASURED),
        ]
        for row, trainings in results.items()
    ]
    return table(["", *FIGURES.values(), *MEASURED.values()], lines)


def against(results: Results) -> str:
    """Every row minus the one that sees one candidate at a time, seed by seed."""
    base, lines = results.get(PLAIN, ()), []
    for row, trainings in results.items():
        if row != PLAIN and base:
            gains = [difference(values(trainings, TASK, f), values(base, TASK, f)) for f in list(FIGURES)[:3]]
            gains += [difference(_measured(trainings, figure), _measured(base, figure)) for figure in MEASURED]
            lines.append([row, *("n/a" if gain is None else str(gain) for gain in gains)])
    return table([f"minus {PLAIN}", *list(FIGURES.values())[:3], *MEASURED.values()], lines)


def _measured(trainings: Sequence[Mapping[str, Any]], figure: str) -> list[float | None]:
    return [training["measured"][figure] for training in trainings]


SPEC = CHECKOUT / "specs" / "shop.toml"
SUITE = Suite(
    specs={"plain": SPEC, "features": SPEC},
    seeds=3,
    rows=rows,
    page=page,
    measure="benchmarks.quality.lists:measure",
    overrides=(
        "source.requests=12.0",
        "source.rivalry=1.0",
        'train.tables="redraw"',
        "train.epochs=16",
        "train.batch=4096",
        "train.lr=0.001",
    ),
    changes={"features": NEIGHBOURS},
)
