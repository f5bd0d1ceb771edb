"""The inputs of interaction layers and experts: context and candidates as columns, and histories to attend to.

Where ids have U embeddings, one per copy, everything but `owner` and `known` has a leading axis of U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AttendedHistory:
    """A history of each request beside what each candidate is compared with: steps [B, L, d], query [N, d].

    `known` [B, L] says which steps there are; a request may have none.
    """

    steps: Tensor
    known: Tensor
    query: Tensor


@dataclass(frozen=True)
class Inputs:
    """context [B, C], candidate [N, D], owner [N], and the histories a candidate can attend to."""

    context: Tensor
    candidate: Tensor
    owner: Tensor
    histories: Sequence[AttendedHistory] = ()


@dataclass(frozen=True)
class InputWidths:
    """The widths of the columns of Inputs, field by field, and of a step of each history."""

    context: Sequence[int]
    candidate: Sequence[int]
    histories: Sequence[int] = ()
