"""Statistics over seeds: mean and deviation, paired differences, and the standard error of a test AUC.

Two rows share their test set, and with one seed also the order of their batches, so that what they differ in is
compared seed by seed; the interval is Student's, for as many pairs as there are seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality import Results

# Student's t, 97.5%, by degrees of freedom; above these it falls slowly to 1.96
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds, and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        mark = "**" if self.clear else ""
        return f"{mark}{self.mean:+.4f}{mark} [{self.low:+.4f}, {self.high:+.4f}]"


def outputs(results: Results) -> list[str]:
    """Every output that was evaluated, in the order of the reports."""
    return list(
        dict.fromkeys(
            name for trainings in results.values() for training in trainings for name in training["report"]["outputs"]
        )
    )


def values(trainings: Sequence[Mapping[str, Any]], output: str, figure: str) -> list[float | None]:
    """A figure of an output, seed by seed; None where it is undefined."""
    return [training["report"]["outputs"].get(output, {}).get(figure) for training in trainings]


def mean(numbers: Sequence[float | None]) -> float | None:
    """The mean; None where one is undefined: a mean of what is left would be another figure."""
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known and len(known) == len(numbers) else None


def spread(numbers: Sequence[float | None], form: str = ".4f") -> str:
    """Mean and sample deviation as text.

    >>> spread([0.5, 0.7]), spread([0.5, None]), spread([0.5])
    ('0.6000 +- 0.1414', 'n/a', '0.5000')
    """
    middle = mean(numbers)
    if middle is None:
        return "n/a"
    known = [number for number in numbers if number is not None]
    tail = f" +- {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    return f"{middle:{form}}{tail}"


def difference(ours: Sequence[float | None], other: Sequence[float | None]) -> Difference | None:
    """Ours minus the other's, seed by seed; None where one is undefined or there is but one seed.

    >>> difference([0.5, 0.75], [0.25, 0.5])
    Difference(mean=0.25, low=0.25, high=0.25)
    """
    pairs = [(a, b) for a, b in zip(ours, other, strict=False) if a is not None and b is not None]
    if len(pairs) < max(2, min(len(ours), len(other))):
        return None
    gains = [round(a - b, 12) for a, b in pairs]
    middle = statistics.fmean(gains)
    half = T.get(len(gains) - 1, 2.2) * statistics.stdev(gains) / math.sqrt(len(gains))
    return Difference(middle, middle - half, middle + half)


def gain(
    ours: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], output: str, figure: str
) -> Difference | None:
    """A figure of our trainings minus the other's of the same seed; None as in `difference`, or where one has none."""
    of_seed = {training["seed"]: training for training in other}
    both = [training for training in ours if training["seed"] in of_seed]
    return difference(values(both, output, figure), values([of_seed[x["seed"]] for x in both], output, figure))


def verdict(apart: Difference | None) -> str:
    """A difference in words, where more is better.

    >>> verdict(Difference(0.2, 0.1, 0.3)), verdict(Difference(0.2, -0.1, 0.5))
    ('better', 'within the spread of seeds')
    """
    if apart is None:
        return "n/a"
    if not apart.clear:
        return "within the spread of seeds"
    return "better" if apart.mean > 0 else "worse"


def standard_error(auc: float, positives: float, negatives: float) -> float:
    """The standard error of an AUC on a test set with so many positives and negatives.

    Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.
    """
    of_positives = auc / (2 - auc) - auc * auc
    of_negatives = 2 * auc * auc / (1 + auc) - auc * auc
    return math.sqrt(
        (auc * (1 - auc) + (positives - 1) * of_positives + (negatives - 1) * of_negatives) / (positives * negatives)
    )


def summary(results: Results) -> dict[str, list[dict[str, str]]]:
    """AUC and grouped AUC of every row and output as tables; one that is undefined everywhere is left out."""
    tables = {}
    for figure in ("auc", "gauc"):
        rows = [
            {"row": row, **{name: spread(values(trainings, name, figure)) for name in outputs(results)}}
            for row, trainings in results.items()
        ]
        if any(cell != "n/a" for row in rows for name, cell in row.items() if name != "row"):
            tables[figure] = rows
    return tables
