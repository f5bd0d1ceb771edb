"""Target attention: each candidate attends to the histories of its request.

    DIN          a_l = MLP([t; s_l; t - s_l; t * s_l])                    out = sum_l a_l s_l
    multi-head   a_hl = softmax_l(q_h . k_hl / sqrt(A)), or its ReLU      out = W_o [sum_l a_hl v_hl]_h

t [N, D] is the candidate, s [B, L, D] are the steps of its request's history. Layers of s alone run once per request.
Padding is masked, and an empty history gives exactly 0.
Zhou et al., Deep Interest Network, KDD 2018, section 4.3; Vaswani et al., Attention Is All You Need, NIPS 2017,
section 3.2. Weights that are not normalised to 1 preserve the intensity of an interest: DIN, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.inputs import AttendedHistory
from rec.spec import Few, Positive, Strict

_OF_KIND = {"din": {"hidden", "softmax"}, "multihead": {"heads", "width", "activation"}}


class AttentionConfig(Strict):
    """Target attention: a candidate's ids attend to the request's histories that share their embedding table."""

    kind: Literal["din", "multihead"] = Field(
        description="din: a perceptron weighs a step; multihead: products of queries and keys do"
    )
    hidden: Annotated[list[Positive], Field(min_length=1)] = Field(
        default=[32], description="din: widths of the perceptron that weighs a step"
    )
    softmax: bool = Field(default=False, description="din: weights of a history sum to 1")
    heads: Few = Field(default=2, description="multihead: how many")
    width: Positive = Field(default=16, description="multihead: of a head's queries, keys and values")
    activation: Literal["softmax", "relu"] = Field(default="softmax", description="multihead: from scores to weights")

    @model_validator(mode="after")
    def _of_its_kind(self) -> AttentionConfig:
        for name in sorted(self.model_fields_set - _OF_KIND[self.kind] - {"kind"}):
            raise ValueError(f"expected no {name!r} with kind {self.kind!r}")
        return self


class Din(nn.Module):
    """DIN: a history of width D -> [N, D], its steps weighted by a perceptron over candidate and step.

    The first layer of [t; s; t - s; t * s] is a layer of t, one of s and one of t * s; t - s is in the first two, since
    W_1 t + W_2 s + W_3 (t - s) = (W_1 + W_3) t + (W_2 - W_3) s.
    """

    def __init__(self, width: int, hidden: Sequence[int], *, softmax: bool) -> None:
        super().__init__()
        self.candidate = nn.Linear(width, hidden[0])
        self.step = nn.Linear(width, hidden[0], bias=False)
        self.product = nn.Linear(width, hidden[0], bias=False)
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([*hidden, 1]))
        self.softmax = softmax

    def forward(self, past: AttendedHistory, owner_N: Tensor) -> Tensor:
        """[N, D]."""
        steps_BLD = _known_only(past)
        own_NLD = steps_BLD.index_select(0, owner_N)
        x_NLH = self.product(own_NLD * past.query.unsqueeze(1))
        # in place: N x L rows are the largest tensors before the experts
        x_NLH.add_(self.step(steps_BLD).index_select(0, owner_N)).add_(self.candidate(past.query).unsqueeze(1))
        for layer in self.rest:
            x_NLH = layer(F.relu(x_NLH))
        weight_NL = x_NLH.squeeze(-1)
        if self.softmax:
            weight_NL = _shares(weight_NL, past.known.index_select(0, owner_N))
        return torch.bmm(weight_NL.unsqueeze(1), own_NLD).squeeze(1)


class MultiHead(nn.Module):
    """Multi-head attention: a history of width D -> [N, D], queries from the candidate, keys and values from the steps.

    `heads` heads of `head` columns each.
    """

    def __init__(self, width: int, *, heads: int, head: int, relu: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.relu = heads, head**-0.5, relu
        self.query = nn.Linear(width, heads * head, bias=False)
        self.key = nn.Linear(width, heads * head, bias=False)
        self.value = nn.Linear(width, heads * head, bias=False)
        self.out = nn.Linear(heads * head, width, bias=False)

    def forward(self, past: AttendedHistory, owner_N: Tensor) -> Tensor:
        """[N, D]; without biases, so that padding contributes nothing."""
        steps_BLD = _known_only(past)
        query_N1HA = (self.query(past.query) * self.scale).unflatten(1, (1, self.heads, -1))
        # products and sums, not torch.matmul: a matrix per candidate and head is smaller than its call
        score_NLH = (self._own(self.key(steps_BLD), owner_N) * query_N1HA).sum(-1)
        if self.relu:
            weight_NLH = F.relu(score_NLH)
        else:
            weight_NLH = _shares(score_NLH, past.known.index_select(0, owner_N).unsqueeze(-1))
        answer_NHA = (self._own(self.value(steps_BLD), owner_N) * weight_NLH.unsqueeze(-1)).sum(1)
        return self.out(answer_NHA.flatten(1))

    def _own(self, x_BLW: Tensor, owner_N: Tensor) -> Tensor:
        """Every head's columns, per candidate [N, L, heads, A]."""
        return x_BLW.index_select(0, owner_N).unflatten(2, (self.heads, -1))


def create(config: AttentionConfig, width: int) -> nn.Module:
    """What `[model.attention]` describes, over a history whose steps have `width` columns."""
    if config.kind == "din":
        return Din(width, config.hidden, softmax=config.softmax)
    return MultiHead(width, heads=config.heads, head=config.width, relu=config.activation == "relu")


def _known_only(past: AttendedHistory) -> Tensor:
    """The steps [B, L, D] with padding set to 0."""
    return past.steps.masked_fill(~past.known.unsqueeze(-1), 0.0)


def _shares(score: Tensor, known: Tensor) -> Tensor:
    """Softmax over the known steps (axis 1), 0 on padding; finite for an empty history, whose steps are zeros."""
    return score.masked_fill(~known, torch.finfo(score.dtype).min).softmax(1)
