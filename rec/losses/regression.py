"""Regression tasks: one tower per task that predicts a number, its loss, and its value.

Every head has one z per candidate, trained where the label is observed and the parent happened:

    log        value = exp(mean + std z) - 1          squared error of z against (log(1 + y) - mean) / std
    quantile   value = exp(mean + std z) - 1          pinball loss of z against the same: it is equivariant
    ordinal    P(y > edge k) = sigmoid(z - cut k)     log loss of y's bin; value = sum over bins of P(bin) mean(bin)

An objective has the classification tasks; regression heads are beside it, above the same experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.data.label_bins import LabelBins
from rec.losses.reduction import mean
from rec.modules.towers import Towers
from rec.spec import Task
from rec.spec.tasks import conditional, in_order, loss_rows, regression_tasks, sample_weights

_THIN = 1e-30  # the narrowest bin
_FAR = 1e9  # beyond any z: the outer edges of the first and the last bin


class RegressionHeads(nn.Module):
    """Representations of all tasks [T, N, H], in order -> {regression task: z [N]}."""

    start: Tensor

    def __init__(
        self,
        tasks: Mapping[str, Task],
        targets: Mapping[str, LabelBins],
        *,
        width: int,
        tower_widths: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tasks = regression_tasks(tasks)
        places = {name: place for place, name in enumerate(in_order(tasks))}
        self.mine = [places[name] for name in self.tasks]
        self.others = [place for place in places.values() if place not in self.mine]
        self.towers = Towers(len(self.tasks), width, tower_widths, dropout)
        self.kinds = nn.ModuleList(_KINDS[task.predict](task, targets[name]) for name, task in self.tasks.items())
        self.register_buffer("start", torch.tensor([targets[name].start for name in self.tasks]))

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """One number per candidate and task, conditional on the task's parent."""
        z_RN = self.towers(_taken(hidden_TNH, self.mine)).squeeze(-1) + self.start.unsqueeze(1)
        return dict(zip(self.tasks, z_RN.unbind(0), strict=True))

    def events(self, hidden_TNH: Tensor) -> Tensor:
        """The representations of the other tasks, which an objective reads."""
        return _taken(hidden_TNH, self.others)

    def losses(self, z: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss of each task over candidates whose label is observed and whose parent happened; 0 of none.

        With sample weights the mean is weighted.
        """
        losses = {}
        for (name, task), kind in zip(self.tasks.items(), self.kinds, strict=True):
            rows = loss_rows(name, task, labels)
            # an unknown label is NaN, which even unused would spoil the gradient
            label_N = torch.where(rows, labels[name], 0.0)
            loss_N = kind.loss(z[name], label_N)  # pyright: ignore[reportCallIssue]
            losses[name] = mean(rows, loss_N, sample_N=sample_weights(name, labels))
        return losses

    def values(self, z: Mapping[str, Tensor], probability: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{output: value [N]}; for a child both its value given the parent, and that times P(parent)."""
        out: dict[str, Tensor] = {}
        for (name, task), kind in zip(self.tasks.items(), self.kinds, strict=True):
            value = kind.value(z[name])  # pyright: ignore[reportCallIssue]
            if task.given is None:
                out[name] = value
            else:
                out[name] = probability[task.given] * value
                out[conditional(name, task.given)] = value
        return out


class NoClassification(nn.Module):
    """The objective of a spec without classification tasks: no logits, no losses."""

    def forward(self, hidden_TNH: Tensor) -> dict[str, Tensor]:
        """No logit."""
        del hidden_TNH
        return {}

    def losses(self, hidden_TNH: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """No loss."""
        del hidden_TNH, labels
        return {}


class LogHead(nn.Module):
    """Least squares on log(1 + y), standardised: its value is like a geometric mean, below the mean of a long tail."""

    def __init__(self, task: Task, target: LabelBins) -> None:
        super().__init__()
        del task
        self.mean, self.std, self.top = target.mean, target.std, target.top

    def loss(self, z_N: Tensor, label_N: Tensor) -> Tensor:
        """Squared error of every candidate [N]."""
        return (self.scaled(label_N) - z_N).square()

    def value(self, z_N: Tensor) -> Tensor:
        """Clipped to 0 .. the largest training label, or the mean of its bucket in the sketch [N]."""
        return torch.expm1((self.mean + self.std * z_N).clamp(0.0, self.top))

    def scaled(self, label_N: Tensor) -> Tensor:
        """Labels on the scale of z [N]."""
        return (torch.log1p(label_N) - self.mean) / self.std


class QuantileHead(LogHead):
    """Quantile regression: the value that a share `quantile` of labels does not exceed.

    Koenker and Bassett, Regression Quantiles, Econometrica 1978, section 3. A quantile of log(1 + y) is the logarithm
    of the same quantile of 1 + y, so fitting it on the log scale is exact.
    """

    def __init__(self, task: Task, target: LabelBins) -> None:
        super().__init__(task, target)
        self.quantile = task.quantile

    def loss(self, z_N: Tensor, label_N: Tensor) -> Tensor:
        """Pinball loss of every candidate [N]: a z too low by d costs quantile d, too high (1 - quantile) d."""
        short_N = self.scaled(label_N) - z_N
        return torch.maximum(self.quantile * short_N, (self.quantile - 1) * short_N)


class OrdinalHead(nn.Module):
    """The cumulative logit model over bins of about equal mass, with learnt cuts that stay in order.

    McCullagh, Regression Models for Ordinal Data, JRSS B 1980, section 2 (proportional odds).
    """

    edges: Tensor
    first_mean: Tensor
    steps: Tensor

    def __init__(self, task: Task, target: LabelBins) -> None:
        super().__init__()
        del task
        means, cuts = torch.tensor(target.means), torch.tensor(target.cuts, dtype=torch.float64)
        self.register_buffer("edges", torch.tensor(target.edges))
        self.register_buffer("first_mean", means[0])
        self.register_buffer("steps", means.diff())
        self.first = nn.Parameter(cuts[:1].float())
        self.gaps = nn.Parameter(cuts.diff().expm1().log().float())  # softplus of it is the gap

    def cuts(self) -> Tensor:
        """The z at which P(y > edge k) is 1/2 [K - 1], increasing."""
        return torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])

    def loss(self, z_N: Tensor, label_N: Tensor) -> Tensor:
        """-log P(bin of the label) of every candidate [N].

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which is exact where the difference is not.
        """
        cuts = self.cuts()
        far = cuts.new_full((1,), _FAR)
        bound, gaps = torch.cat([-far, cuts, far]), torch.cat([far, F.softplus(self.gaps).clamp(min=_THIN), far])
        bin_N = torch.bucketize(label_N, self.edges)
        above_N, below_N = bound[bin_N], bound[bin_N + 1]
        gap_N = gaps[bin_N]  # not the difference of cuts, which is rounded to 0 where a bin is very thin
        return -(F.logsigmoid(below_N - z_N) + F.logsigmoid(z_N - above_N) + torch.log(-torch.expm1(-gap_N)))

    def value(self, z_N: Tensor) -> Tensor:
        """The expected label: the lowest bin's mean, plus each step to the next mean times P(y > edge)."""
        return self.first_mean + torch.sigmoid(z_N.unsqueeze(1) - self.cuts()) @ self.steps


def _taken(hidden_TNH: Tensor, places: list[int]) -> Tensor:
    """Some tasks' representations; a view without a copy where they are contiguous."""
    if not places:
        return hidden_TNH[:0]
    if places == list(range(places[0], places[-1] + 1)):
        return hidden_TNH[places[0] : places[-1] + 1]
    return torch.stack([hidden_TNH[place] for place in places])


_KINDS = {"log": LogHead, "quantile": QuantileHead, "ordinal": OrdinalHead}
