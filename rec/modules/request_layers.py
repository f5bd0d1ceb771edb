"""A candidate among the others of its request: summaries of all of them, and self-attention among them.

    t_n       = ReLU( W [context; candidate n] + b )                                                       [N, W]
    mean      mean of t over the request                  max   largest t of the request, column by column  [B, W]
    pooled    sum of a_n t_n,  a = softmax over the request of w . t_n                                       [B, W]
    attended  W_o [sum_m a_hnm v_hm]_h,  a = softmax over the request's m of q_hn . k_hm / sqrt(A)           [N, W]

Summaries are one per request and stand beside the context's columns, or beside the candidate's where the context has
none; attended ones beside the candidate's. Nothing
depends on the order of candidates, or on other requests: `owner` is the border. Training and evaluation attend request
by request, those of about one size together; an exported graph attends over all candidates, and masks other requests,
if there are any.
Zaheer et al., Deep Sets, NeurIPS 2017; Pei et al., Personalized Re-ranking for Recommendation, RecSys 2019 (PRM).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rec.modules.linear import PairLinear
from rec.spec import Few, Positive, Strict

_APART = 1e6  # what a candidate of the next request is below one of its own, before a softmax
Summary = Literal["mean", "max", "pooled"]


class RequestConfig(Strict):
    """A candidate among the others of its request: summaries of all of them, and self-attention among them."""

    summaries: list[Summary] = Field(
        default=["mean", "max", "pooled"],
        description="of a request's candidates; pooled: weights are learnt",
    )
    self_attention: bool = Field(default=True, description="each candidate attends to the candidates of its request")
    width: Positive = Field(default=32, description="of a candidate as the others see it, and of each summary")
    heads: Few = Field(default=2, description="of self-attention; width is divided among them")

    @model_validator(mode="after")
    def _whole_heads(self) -> RequestConfig:
        if len(set(self.summaries)) < len(self.summaries):
            raise ValueError(f"expected each of 'summaries' once, got {self.summaries!r}")
        if not self.summaries and not self.self_attention:
            raise ValueError("expected 'summaries' or 'self_attention'; leave the table out for neither")
        if self.width % self.heads:
            raise ValueError(f"expected 'width' to be a multiple of 'heads', got {self.width} and {self.heads}")
        return self


class RequestLayers(nn.Module):
    """context [B, C], candidate [N, D], owner [N] -> new columns of both [B, S] and [N, A]; either may be 0 wide."""

    def __init__(self, config: RequestConfig, *, context: int, candidate: int) -> None:
        super().__init__()
        width = config.width
        self.summaries, self.heads = list(config.summaries), config.heads
        summaries, attended = width * len(self.summaries), width if config.self_attention else 0
        self.context, self.candidate = (summaries, attended) if context else (0, summaries + attended)
        self.token = PairLinear(context, candidate, width)
        self.weight = nn.Linear(width, 1, bias=False) if "pooled" in self.summaries else None
        self.project = nn.Linear(width, 3 * width, bias=False) if config.self_attention else None
        self.out = nn.Linear(width, width, bias=False) if config.self_attention else None

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> tuple[Tensor, Tensor]:
        """Of every request, and of every candidate."""
        token_NW = F.relu(self.token(context_BC, candidate_ND, owner_N))
        size, requests_N = context_BC.shape[0], owner_N
        if not context_BC.shape[1]:
            # without a context a graph does not know how many requests there are: as many as candidates, at most
            requests_N, size = _numbered(owner_N), owner_N.shape[0]
        summaries = [self._summary(name, token_NW, requests_N, size) for name in self.summaries]
        summary_BS = torch.cat(summaries, 1) if summaries else token_NW.new_zeros((size, 0))
        columns_NA = self._attended(token_NW, requests_N, size)
        if context_BC.shape[1]:
            return summary_BS, columns_NA
        return context_BC, torch.cat([summary_BS.index_select(0, requests_N), columns_NA], 1)

    def _attended(self, token_NW: Tensor, owner_N: Tensor, size: int) -> Tensor:
        if self.project is None or self.out is None:
            return token_NW[:, :0]
        projected_NP = self.project(token_NW)
        if torch.compiler.is_exporting():
            return self.out(attended_at_once(projected_NP, owner_N, self.heads))
        query_NHA, key_NHA, value_NHA = projected_NP.unflatten(1, (3, self.heads, -1)).unbind(1)
        return self.out(attended(query_NHA, key_NHA, value_NHA, owner_N, size).flatten(1))

    def _summary(self, name: str, token_NW: Tensor, owner_N: Tensor, size: int) -> Tensor:
        if name == "mean":
            return _sum(token_NW, owner_N, size) / _sum(torch.ones_like(token_NW[:, :1]), owner_N, size).clamp(min=1)
        if name == "max":  # tokens are 0 or more
            return _largest(token_NW, owner_N, size)
        assert self.weight is not None
        score_N1 = self.weight(token_NW)
        # a softmax is the same whatever is subtracted from its scores
        top_B1 = _largest(score_N1.detach(), owner_N, size, least=torch.finfo(score_N1.dtype).min)
        share_N1 = (score_N1 - top_B1.index_select(0, owner_N)).exp()
        return _sum(share_N1 * token_NW, owner_N, size) / _sum(share_N1, owner_N, size).clamp(min=1e-9)


def attended(query_NHA: Tensor, key_NHA: Tensor, value_NHA: Tensor, owner_N: Tensor, size: int) -> Tensor:
    """Multi-head attention inside each request [N, heads, A], requests of about one size together, padded to one size.

    The work is that of the pairs inside requests, to a factor of 4, whatever the largest request is.
    """
    count_B = torch.bincount(owner_N, minlength=size)
    first_B = count_B.cumsum(0) - count_B
    grade_B = (count_B.clamp(min=1) - 1).to(torch.float64).log2().floor().clamp(min=-1).to(torch.int64) + 1
    out_NHA = torch.zeros_like(value_NHA)
    for grade in grade_B[count_B > 0].unique().tolist():
        mine = ((grade_B == grade) & (count_B > 0)).nonzero().squeeze(1)
        place_L = torch.arange(1 << grade, device=owner_N.device)
        known_RL = place_L < count_B[mine].unsqueeze(1)
        row_RL = (first_B[mine].unsqueeze(1) + place_L).where(known_RL, first_B[mine].unsqueeze(1))
        query, key, value = (x_NHA[row_RL].transpose(1, 2) for x_NHA in (query_NHA, key_NHA, value_NHA))
        answer_RHLA = F.scaled_dot_product_attention(query, key, value, attn_mask=known_RL[:, None, None, :])
        out_NHA = out_NHA.index_put((row_RL[known_RL],), answer_RHLA.transpose(1, 2)[known_RL])
    return out_NHA


def attended_at_once(projected_NP: Tensor, owner_N: Tensor, heads: int) -> Tensor:
    """The same for a graph, from queries, keys and values side by side [N, 3 W] to [N, W]: for as few as are served."""

    def alone(projected_NP: Tensor, owner_N: Tensor) -> Tensor:
        del owner_N
        return attended_alone(projected_NP, heads)

    def together(projected_NP: Tensor, owner_N: Tensor) -> Tensor:
        return attended_together(projected_NP, owner_N, heads)

    # requests are numbered from 0; an endpoint scores one alone, where a mask would take longer than a product
    return torch.cond(owner_N.sum() == 0, alone, together, (projected_NP, owner_N))


def attended_alone(projected_NP: Tensor, heads: int, apart_NN: Tensor | None = None) -> Tensor:
    """Over all pairs of candidates of one request [N, W]; `apart` is taken from their scores."""
    query_HNA, key_HNA, value_HNA = projected_NP.unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3).unbind(0)
    score_HNN = (query_HNA * query_HNA.shape[-1] ** -0.5) @ key_HNA.transpose(1, 2)
    share_HNN = (score_HNN if apart_NN is None else score_HNN - apart_NN).softmax(2)
    return (share_HNN @ value_HNA).transpose(0, 1).flatten(1)


def attended_together(projected_NP: Tensor, owner_N: Tensor, heads: int) -> Tensor:
    """Over all pairs of candidates of any number of requests [N, W], those of two requests masked."""
    # 0 inside a request and so far below elsewhere that a softmax gives exactly 0; a comparison and a mask take longer
    place_N = owner_N.to(projected_NP.dtype) * _APART
    return attended_alone(projected_NP, heads, (place_N.unsqueeze(1) - place_N.unsqueeze(0)).abs())


def _numbered(owner_N: Tensor) -> Tensor:
    """Requests numbered from 0 without those that have no candidate [N]; `owner` is sorted."""
    before_N = torch.cat([owner_N[:1], owner_N])[: owner_N.shape[0]]
    return (owner_N != before_N).to(torch.int64).cumsum(0)


def _sum(x_NW: Tensor, owner_N: Tensor, size: int) -> Tensor:
    """By request [B, W]."""
    return x_NW.new_zeros((size, x_NW.shape[1])).index_add(0, owner_N, x_NW)


def _largest(x_NW: Tensor, owner_N: Tensor, size: int, *, least: float = 0.0) -> Tensor:
    """By request [B, W], and `least` where nothing is larger."""
    index_NW = owner_N.unsqueeze(1).expand_as(x_NW)
    return x_NW.new_full((size, x_NW.shape[1]), least).scatter_reduce(0, index_NW, x_NW, "amax")
