"""The inputs of interaction layers and experts: context and candidates as columns, and histories to attend to.

Where ids have U embeddings, one per copy, everything but `owner` and `known` has a leading axis of U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AttendedHistory:
    """Keys and queries of target attention: a request's history, steps [B, L, d], and the candidate's query [N, d].

    `known` [B, L] is False on padding; a history may be empty.
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
    """The widths of Inputs, field by field, and of a step of each history."""

    context: Sequence[int]
    candidate: Sequence[int]
    histories: Sequence[int] = ()
