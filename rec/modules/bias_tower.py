"""A shallow tower for what moved a label and is not the candidate: the position it was shown in, the device, a layout.

    logit in training = logit of the network + b - mean of b      b = sum over bias features: a weight per value, or w x

The tower reads features with `bias = true`, which nothing else reads. It is part of the training losses alone: what is
evaluated and served is the network's own logit, which is that of a candidate whose bias is the mean one. So the network
need not explain by the item what the position explains.
Zhao et al., Recommending What Video to Watch Next, RecSys 2019, section 4.3; Ling et al., Model Ensemble for Click
Prediction in Bing Search Ads, WWW 2017, on position as a term of the logit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec import world
from rec.data.preprocessor import Preprocessor
from rec.modules.dense import Numbers
from rec.request import RequestBatch
from rec.spec import Number, Spec, has_rows
from rec.spec.features import is_bias

SIDES = ("context", "candidates")


class BiasTower(nn.Module):
    """A RequestBatch -> what bias features add to the logits of T tasks [T, N]; 0 on average over the batch.

    `rows` are those of ids, by side and feature, and `numbers` scaled numbers.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, int]], numbers: Mapping[str, Numbers], tasks: int) -> None:
        super().__init__()
        self.ids = nn.ModuleDict(
            {
                side: nn.ParameterDict({f"of_{name}": nn.Parameter(torch.zeros(n, tasks)) for name, n in of.items()})
                for side, of in rows.items()
            }
        )
        self.numbers = nn.ModuleDict(dict(numbers))
        self.slopes = nn.ModuleDict({side: nn.Linear(len(of.names), tasks, bias=False) for side, of in numbers.items()})
        self.tasks = tasks

    def forward(self, batch: RequestBatch) -> Tensor:
        """All ranks call together."""
        values = {"context": batch.context, "candidates": batch.candidates}
        total_NT = torch.zeros(len(batch), self.tasks, device=batch.owner.device)
        for side in SIDES:
            terms = []
            if side in self.ids:
                weights = self.ids[side]
                assert isinstance(weights, nn.ParameterDict)
                terms += [weight[values[side][name.removeprefix("of_")]] for name, weight in weights.items()]
            if side in self.slopes:
                terms.append(self.slopes[side](self.numbers[side](values[side])))
            for term in terms:
                total_NT = total_NT + (term.index_select(0, batch.owner) if side == "context" else term)
        count = world.total(torch.tensor(float(len(batch)), device=batch.owner.device)).clamp(min=1)
        return (total_NT - world.total_with_gradient(total_NT.sum(0)) / count).t()


def weights_of_values(spec: Spec) -> dict[str, str]:
    """{name of a weight per value, in a ranker: its feature}.

    >>> weights_of_values(spec)  # doctest: +SKIP
    {'bias.ids.candidates.of_position': 'position'}
    """
    return {
        f"bias.ids.{side}.of_{name}": name
        for side, features in spec.sides()
        for name, feature in features.items()
        if is_bias(feature) and has_rows(feature)
    }


def create(spec: Spec, preprocessor: Preprocessor, *, tasks: int) -> BiasTower | None:
    """The tower of a spec's bias features; None where there are none."""
    rows_of, rows, numbers = preprocessor.rows(spec), {}, {}
    for side, features in spec.sides():
        mine = {name: f for name, f in features.items() if is_bias(f)}
        if ids := {name: rows_of[name] for name, f in mine.items() if has_rows(f)}:
            rows[side] = ids
        scales = {
            name: preprocessor.scales[name] for name, f in mine.items() if isinstance(f, Number) and not has_rows(f)
        }
        if scales:
            numbers[side] = Numbers(scales)
    return BiasTower(rows, numbers, tasks) if rows or numbers else None
