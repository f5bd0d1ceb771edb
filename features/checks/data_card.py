"""The data card: a summary of DATA in figures, for people and programs.

DATA/card.json    counts by split, unseen ids, missing values, drift
DATA/card.md      the same as tables
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.transforms.sample_weights import in_words
from rec.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from features.checks import TableReport

SHOWN = 0.1  # PSI from which a feature stands in the tables; the file has all of them

CardTable = tuple[str, list[str], list[list[str]]]  # caption, titles, rows


def make(
    name: str, *, counts: Mapping[str, Any], unseen: Mapping[str, Mapping[str, float]], report: TableReport
) -> dict[str, Any]:
    """The card of a data set: `counts` and `unseen` are of all rows, by split; the rest is of the samples."""
    return {
        "name": name,
        "counts": dict(counts),
        "unseen": dict(unseen),
        "missing": dict(report.missing),
        "drift": dict(report.drift),
        "looked_at": {split: len(sample.owner) for split, sample in report.samples.items()},
    }


def write(folder: Path, card: Mapping[str, Any]) -> None:
    """card.json and card.md."""
    write_json(folder / "card.json", dict(card))
    write_bytes(folder / "card.md", markdown(card).encode())


def markdown(card: Mapping[str, Any]) -> str:
    """The card as a page."""
    lines = [f"# Data card: {card['name']}"]
    for caption, titles, rows in tables(card):
        lines += ["", f"## {caption.capitalize()}", "", _line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
        lines += [_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def tables(card: Mapping[str, Any]) -> list[CardTable]:
    """The card as tables with one column per split: counts, unknown ids, missing values, drift."""
    sections = [("session tables", ["", *card["counts"]], _across({s: _counts(c) for s, c in card["counts"].items()}))]
    for key, caption in (("unseen", "ids not in train"), ("missing", "rows without a value")):
        shares = card.get(key, {})
        if any(shares.values()):
            shares_of = {split: {name: f"{share:.2%}" for name, share in of.items()} for split, of in shares.items()}
            sections.append((caption, ["", *shares_of], _across(shares_of)))
    moved = [[name, f"{index:.2f}"] for name, index in card.get("drift", {}).items() if index >= SHOWN]
    if moved:
        sections.append((f"features that drift from train to test (PSI of {SHOWN} or more)", ["", "PSI"], moved))
    return sections


def _counts(split: Mapping[str, Any]) -> dict[str, str]:
    """Counts of a split by name; for each task, observed labels, positives, and their share."""
    figures = {name: f"{count:,}" for name, count in split.items() if not isinstance(count, Mapping)}
    for task, positives in split["positives"].items():
        observed = split["observed"][task]
        figures[f"{task} observed"] = f"{observed:,}"
        figures[f"{task} positive"] = f"{positives:,}"
        figures[f"{task} share"] = f"{positives / observed:.2%}" if observed else "n/a"
        if task in split.get("sample_weights", {}):
            figures[f"{task} sample weights"] = in_words(split["sample_weights"][task], observed)
    return figures


def _across(columns: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Table rows from several mappings, one column each: all keys, in order of first occurrence."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [[name, *(column.get(name, "n/a") for column in columns.values())] for name in names]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
