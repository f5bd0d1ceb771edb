"""Do shared experts help: networks of several tasks minus single-task networks of their size, and minus boosted trees.

Differences are of test AUC, seed by seed. The network that a line names is the best one on the validation split: the
best one on the test split would be flattered by the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.quality import Results
from benchmarks.quality.page import table
from benchmarks.quality.statistics import Difference, gain, mean, verdict
from benchmarks.quality.tables import against
from rec.spec.registry import BASELINES

SINGLE = {"single_task": "against-single", "single_task, own tables": "against-own-tables"}
TREES = "gbdt"


def of_models(results: Results, outputs: Sequence[str]) -> dict[str, str]:
    """Tables of a suite whose rows are models of one size: the answers in words, and every difference behind them.

    `sharing` and `trees` have a line for every base and output, `against-...` for every row.
    """
    networks = {row: trainings for row, trainings in results.items() if row not in BASELINES}
    shared = {row: trainings for row, trainings in networks.items() if row not in SINGLE}
    bases = {base: results.get(base, ()) for base in SINGLE}
    tables = {
        "sharing": verdicts(shared, bases, outputs),
        "trees": verdicts(networks, {TREES: results.get(TREES, ())}, outputs),
        "against-trees": against(networks | _of(results, TREES), TREES, outputs),
    }
    return tables | {mark: against(networks, base, outputs) for base, mark in SINGLE.items()}


def verdicts(rows: Results, bases: Results, outputs: Sequence[str]) -> str:
    """For every base and output: the best row on validation minus the base, in words, and the rows clearly apart."""
    lines = []
    for base, trainings in bases.items():
        for output in outputs:
            gains = {row: gain(own, trainings, output, "auc") for row, own in rows.items()}
            known = {row: apart for row, apart in gains.items() if apart is not None}
            best = _best_on_validation({row: rows[row] for row in known}, output)
            apart = known[best] if best else None
            cells = [best or "n/a", str(apart or "n/a"), verdict(apart)]
            cells += [_named(known, lambda apart: apart.low > 0), _named(known, lambda apart: apart.high < 0)]
            lines.append([f"`{output}`, minus {base}", *cells])
    titles = ["", "best network on validation", "its difference", "it is", "clearly better", "clearly worse"]
    return table(titles, lines)


def pairs(results: Results, compared: Sequence[tuple[str, str]], outputs: Sequence[str]) -> str:
    """For every pair of rows and output: the first minus the second, and the same in words."""
    lines = []
    for ours, other in compared:
        for output in outputs:
            apart = gain(results.get(ours, ()), results.get(other, ()), output, "auc")
            lines.append([f"{ours} - {other}", f"`{output}`", str(apart or "n/a"), verdict(apart)])
    return table(["test AUC", "of", "difference", "the first is"], lines)


def _of(results: Results, row: str) -> dict[str, Sequence[Mapping[str, Any]]]:
    return {row: results[row]} if row in results else {}


def _best_on_validation(rows: Results, output: str) -> str | None:
    means = {row: mean([training["validation"].get(output) for training in own]) for row, own in rows.items()}
    known = {row: middle for row, middle in means.items() if middle is not None}
    return max(known, key=lambda row: known[row]) if known else None


def _named(gains: Mapping[str, Difference], apart: Callable[[Difference], bool]) -> str:
    names = [row for row, difference in gains.items() if apart(difference)]
    return f"{len(names)} of {len(gains)}" + (f": {'; '.join(names)}" if names else "")
