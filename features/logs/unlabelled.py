"""Files that lack a column: of a label, and what came of their rows is not observed; another, and they are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from features.logs.logs import Finding, Piece, kinds_of
from rec.spec import Spec

UNLABELLED = "@unlabelled"  # bits of the labels whose columns a row's file does not have


def pieces_without(pieces: Sequence[Piece], of_labels: Mapping[str, int]) -> dict[str, int]:
    """The pieces that lack columns of labels, and the bits of these labels."""
    unknown: dict[str, int] = {}
    for piece in pieces:
        bits = 0
        for column, of_column in of_labels.items():
            bits |= 0 if column in kinds_of(piece) else of_column
        if bits:
            unknown[piece.name] = bits
    return unknown


def findings(
    where: str, unknown: Mapping[str, int], pieces: Sequence[Piece], of_labels: Mapping[str, int]
) -> Iterator[Finding]:
    """The files whose rows have no labels."""
    absent = [c for c in of_labels if any(c not in kinds_of(piece) for piece in pieces)]
    if unknown:
        text = f"files without columns of labels ({', '.join(absent)}): what came of their rows is not observed"
        yield Finding(where, True, len(unknown), len(pieces), tuple(unknown)[:3], text, "warn")


def left_out(
    spec: Spec, where: str, lacking: Sequence[tuple[Piece, str]], pieces: Sequence[Piece]
) -> Iterator[Finding]:
    """The files that are left out, and whether they are more than the spec allows."""

    def weight(piece: Piece) -> float:
        return piece.size or 1

    share = sum(weight(piece) for piece, _ in lacking) / sum(weight(piece) for piece in pieces)
    fine = share <= spec.logs.bad_rows
    limit = "" if fine else f"; logs.bad_rows allows {spec.logs.bad_rows:.2%}, these are {share:.2%}"
    for _, reason in lacking:
        yield Finding(where, fine, 1, len(pieces), (), f"{reason}; left out{limit}", "warn" if fine else "fail")
