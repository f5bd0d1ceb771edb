"""The matrix products of a step, one by one: what they take alone, at the rate of their own shapes.

A floor by one large product says how far a step is from the machine. Many of its products cannot run at that rate:
inner widths are few, or as many as candidates. Here every product that a step calls is called again, alone, on tensors
of the same shapes, strides and types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = {getattr(torch.ops.aten, name) for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")}


@dataclass(frozen=True)
class _Shape:
    """A tensor without its numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    kind: torch.dtype

    def tensor(self) -> Tensor:
        """One with random numbers."""
        last = sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))
        return torch.randn(last + 1).to(self.kind).as_strided(self.sizes, self.strides)


Product = tuple[Any, tuple[Any, ...]]  # an operator, and its arguments with _Shape for each tensor


def of(work: Callable[[], object]) -> Counter[Product]:
    """Every matrix product that a piece of work calls, and how often."""
    with _Seen() as seen:
        work()
    return seen.products


def alone(products: Counter[Product], seconds: Callable[[Callable[[], object]], float]) -> float:
    """What they take, each by itself, by the given clock."""
    return sum(count * _alone(product, seconds) for product, count in products.items())


def _alone(product: Product, seconds: Callable[[Callable[[], object]], float]) -> float:
    operator, arguments = product
    tensors = [x.tensor() if isinstance(x, _Shape) else x for x in arguments]
    with torch.no_grad():
        operator(*tensors)  # a first call chooses a kernel, and asks for memory
        return seconds(lambda: operator(*tensors))


class _Seen(TorchDispatchMode):
    """Notes the products that are called inside it, in the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in _PRODUCTS:
            self.products[func, tuple(_shape(x) for x in args)] += 1
        return func(*args, **(kwargs or {}))


def _shape(x: Any) -> Any:
    return _Shape(tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else x
