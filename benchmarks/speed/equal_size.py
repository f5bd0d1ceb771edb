"""Models of equal size: counts of weights and multiply-adds, and widths scaled to a number of weights.

An expert model and its towers are built on torch's meta device, so that counting takes milliseconds at any size.
Embedding tables are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rec import models
from rec.errors import SpecError
from rec.modules.towers import Towers

# the settings that are lists of widths; towers are not among them, they stay as they are
WIDTHS = ("expert_widths", "levels", "bottom_widths")
STEP = 8  # widths are multiples of it: between them, matrix products lose up to a third of their speed
LARGEST = 1 << 16  # no width of a model that anybody trains

Tasks = Mapping[str, str | None]


def parameters(settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Tasks) -> int:
    """How many weights the body and the towers have, above inputs of the given widths (of one copy).

    Raises SpecError when the name or a setting is unknown.
    """
    with torch.device("meta"):
        return sum(p.numel() for p in _built(settings, context=context, candidate=candidate, tasks=tasks).parameters())


def multiply_adds(
    settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Tasks, per_request: int
) -> float:
    """Multiply-adds of the body and the towers per candidate, with `per_request` candidates in every request.

    Counted from the matrix products of one run, so that work done once per request is shared by its candidates, and
    work done once per candidate is not. Raises SpecError when the name or a setting is unknown.
    """
    copies = models.configured(settings).copies(tasks)
    requests = 2
    with torch.device("meta"), torch.no_grad():
        run = _built(settings, context=context, candidate=candidate, tasks=tasks).eval()
        lead = () if copies == 1 else (copies,)
        owner = torch.arange(requests).repeat_interleave(per_request, output_size=requests * per_request)
        sides = torch.empty(*lead, requests, context), torch.empty(*lead, len(owner), candidate)
        with FlopCounterMode(display=False, custom_mapping=_IN_PLACE) as counter:
            run(*sides, owner)
    return counter.get_total_flops() / 2 / len(owner)


def fitted_to(
    settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Tasks, parameters: int
) -> dict[str, Any]:
    """The settings with all widths scaled by one factor, so that body and towers have about `parameters` weights.

    Widths are multiples of 8, at least 8. Raises SpecError when the model has no widths, or a setting is unknown.
    """
    config = models.configured(settings)
    widths_of = {key: widths for key in WIDTHS if isinstance(widths := getattr(config, key, None), list)}
    if not widths_of:
        raise SpecError(f"model.name: {settings.get('name')!r} has no widths to scale: {', '.join(WIDTHS)}")

    def scaled(factor: float) -> dict[str, Any]:
        return {**settings, **{key: _scaled(widths, factor) for key, widths in widths_of.items()}}

    def size(factor: float) -> int:
        return _count(scaled(factor), context=context, candidate=candidate, tasks=tasks)

    low, high = _between(size, parameters, largest=LARGEST / max(_flat(list(widths_of.values()))))
    nearer = min((low, high), key=lambda factor: abs(size(factor) - parameters))
    return scaled(nearer)


_count = parameters  # `parameters` is also the word for how many are wanted


def _between(size: Callable[[float], int], target: int, *, largest: float) -> tuple[float, float]:
    """Two adjacent factors that bracket the wanted size, or the nearest end twice."""
    low, high = 0.0, 1.0
    while size(high) < target:
        if high >= largest:
            return high, high
        low, high = high, min(2 * high, largest)
    for _ in range(24):  # from here on two factors give widths that differ in one step of one width
        middle = (low + high) / 2
        low, high = (low, middle) if size(middle) >= target else (middle, high)
    return low, high


def _scaled(widths: Any, factor: float) -> Any:
    if isinstance(widths, list):
        return [_scaled(width, factor) for width in widths]
    return max(STEP, round(widths * factor / STEP) * STEP)


def _flat(widths: Any) -> list[int]:
    return [inner for width in widths for inner in _flat(width)] if isinstance(widths, list) else [widths]


class _Run(nn.Module):
    """A body and the towers above it, as Heads has them."""

    def __init__(self, body: nn.Module, towers: nn.Module) -> None:
        super().__init__()
        self.body, self.towers = body, towers

    def forward(self, context: Tensor, candidate: Tensor, owner: Tensor) -> Tensor:
        return self.towers(self.body(context, candidate, owner))


def _built(settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Tasks) -> _Run:
    body = models.create(settings, context=context, candidate=candidate, tasks=tasks)
    config = models.configured(settings)
    return _Run(body, Towers(len(tasks), body.width, config.tower_widths, config.dropout))  # pyright: ignore[reportArgumentType]


def _product(_out: Any, left: Any, right: Any, *_rest: Any, **_options: Any) -> int:
    """Two per multiply-add, as torch counts them, of `out += left @ right`, batched or not."""
    return 2 * torch.Size(left).numel() * right[-1]


# torch counts the products that return a new tensor; ours also add to one that exists
_IN_PLACE = {torch.ops.aten.addmm_: _product, torch.ops.aten.baddbmm_: _product}
