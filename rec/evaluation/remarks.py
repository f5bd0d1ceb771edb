"""Warnings to read with the metrics of an output, such as "no better than a constant" or "few positives".

    normalised entropy (normalised error of a regression) of 1 or more     no better than predicting one constant
    fewer than 30 positives or negatives (candidates of a regression)      too few to tell a model from chance

They are shown wherever the metrics are: the terminal, report.json and report.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# normalised entropy and normalised error of the best constant prediction
CONSTANT = 1.0
# with fewer, the standard error of an AUC of 0.7 is above 0.05 (Hanley and McNeil, Radiology 1982)
FEWEST = 30
_BETTER_MODEL = "do not rank by it yet: try more data or features, or a lower train.lr"
_LONGER_SPLIT = "evaluate on a split that covers more time"


@dataclass(frozen=True)
class Remark:
    """One sentence about one output: what its metrics show, and what to do about it."""

    output: str
    fact: str
    advice: str

    @property
    def brief(self) -> str:
        """Without the advice, for a line that is repeated every epoch."""
        return f"{self.output}: {self.fact}"

    def __str__(self) -> str:
        """The whole sentence, as report.json has it."""
        return f"{self.brief}; {self.advice}"


def of(output: str, figures: Mapping[str, Any]) -> list[Remark]:
    """The remarks on the metrics of one output, as returned by `classification.summary` or `regression.summary`.

    >>> [remark.brief for remark in of("buy", {"normalised_entropy": 1.02, "base_rate": 0.01, "positives": 30})]
    ['buy: NE 1.0200, no better than always predicting the base rate 0.0100']
    """
    return [*_of_regression(output, figures)] if "concordance" in figures else [*_of_classification(output, figures)]


def of_outputs(outputs: Mapping[str, Mapping[str, Any]]) -> list[Remark]:
    """The remarks on all outputs, in their order."""
    return [remark for output, figures in outputs.items() for remark in of(output, figures)]


def _of_classification(output: str, figures: Mapping[str, Any]) -> list[Remark]:
    entropy, positives = figures["normalised_entropy"], figures["positives"]
    remarks = []
    if entropy is not None and entropy >= CONSTANT:
        fact = f"NE {entropy:.4f}, no better than always predicting the base rate {figures['base_rate']:.4f}"
        remarks.append(Remark(output, fact, _BETTER_MODEL))
    counts = {"positive": positives}
    if "candidates" in figures:
        counts["negative"] = figures["candidates"] - positives
    for noun, count in counts.items():
        if count < FEWEST:
            fact = f"evaluated on {_number(count, noun)}, fewer than {FEWEST}, too few to rely on its figures"
            remarks.append(Remark(output, fact, _LONGER_SPLIT))
    return remarks


def _of_regression(output: str, figures: Mapping[str, Any]) -> list[Remark]:
    error, candidates = figures["normalised_error"], figures["candidates"]
    remarks = []
    if error is not None and error >= CONSTANT:
        fact = f"normalised error {error:.4f}, no better than always predicting the best constant"
        remarks.append(Remark(output, fact, _BETTER_MODEL))
    if candidates < FEWEST:
        fact = f"evaluated on {_number(candidates, 'candidate')}, fewer than {FEWEST}, too few to rely on its figures"
        remarks.append(Remark(output, fact, _LONGER_SPLIT))
    return remarks


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
