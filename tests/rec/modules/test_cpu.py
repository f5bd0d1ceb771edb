"""Shortcuts for CPUs are taken there alone, and change no number."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rec.modules import cpu
from rec.modules.dropout import Dropout
from rec.modules.experts import ActivationBlock
from rec.modules.gates import mix, softmax_over_experts
from rec.modules.linear import BatchedLinear, GroupInputLayer, SharedInputLayer


class Operations(TorchDispatchMode):
    """The names of the operations that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, _types, arguments=(), options=None):
        """Run it, and note its name."""
        self.names.append(function.overloadpacket.__name__)
        return function(*arguments, **(options or {}))


def operations(module, *inputs, device):
    """What a module runs on a device while it trains."""
    module = module.to(device).train()
    with Operations() as ran:
        module(*(x.to(device) for x in inputs))
    return ran.names


OWNER = torch.tensor([0, 0, 1])
X_ENH = torch.ones(4, 3, 5)
CASES = {
    "narrow product": (BatchedLinear(4, 5, 2), (X_ENH,), "stack"),
    "first layer": (SharedInputLayer(3, 2, count=4, out=8), (torch.ones(2, 3), torch.ones(3, 2), OWNER), "baddbmm_"),
    "narrow first layer": (
        GroupInputLayer(3, 2, counts=[1, 1], out=4),
        (torch.ones(2, 2, 3), torch.ones(2, 3, 2), OWNER),
        "stack",
    ),
    "batch norm": (ActivationBlock(4, 5, norm=True, activation="relu", dropout=0.0), (X_ENH,), "stack"),
    "dropout": (Dropout(0.5), (X_ENH,), "random_"),
}


@pytest.mark.parametrize(("module", "inputs", "mark"), CASES.values(), ids=CASES)
def test_another_device_takes_the_plain_way(module, inputs, mark):
    """`mark` is an operation of the shortcut: it runs on a CPU, and on another device it does not."""
    assert mark in operations(module, *inputs, device="cpu")
    assert mark not in operations(module, *inputs, device="meta")


def test_gates_on_another_device_are_one_softmax():
    """Nothing is turned around."""
    with Operations() as ran:
        softmax_over_experts(torch.ones(6, 2, 3, device="meta"))
    assert "_softmax" in ran.names
    assert "permute" not in ran.names


def test_the_shortcuts_give_the_plain_numbers():
    """Products, norms and gates, to the last bits of float32."""
    torch.manual_seed(1)
    x_ENH, weight, bias = torch.randn(4, 7, 5), torch.randn(4, 5, 3), torch.randn(4, 1, 3)
    torch.testing.assert_close(cpu.product_by_expert(x_ENH, weight, bias), torch.baddbmm(bias, x_ENH, weight))
    logit_NGE = torch.randn(6, 2, 3)
    torch.testing.assert_close(cpu.softmax_over_experts(logit_NGE), logit_NGE.softmax(2))
    layer = SharedInputLayer(3, 2, count=4, out=8)
    inputs = torch.randn(2, 3), torch.randn(3, 2), OWNER
    torch.testing.assert_close(layer.train()(*inputs), layer.eval()(*inputs))


def mixed(gate_NGE, expert_ENH):
    """Mixtures [G, N, H] and the gradients of their weighted sum: of gates and of experts."""
    gate, expert = gate_NGE.clone().requires_grad_(), expert_ENH.clone().requires_grad_()
    out_GNH = mix(gate, expert)
    pull = torch.randn(out_GNH.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (out_GNH * pull).sum().backward()
    return out_GNH.detach(), gate.grad, expert.grad


@pytest.mark.parametrize(("count", "gates", "experts"), [(7, 3, 8), (5, 1, 1), (0, 2, 4)])
def test_mixtures_by_bags_are_those_of_products(count, gates, experts):
    """Mixtures and both gradients, in either precision; some ranks have no candidate of a batch."""
    torch.manual_seed(1)
    gate_NGE, expert_ENH = torch.rand(count, gates, experts), torch.randn(experts, count, 6)
    exact = gate_NGE.double().requires_grad_(), expert_ENH.double().requires_grad_()
    wanted_GNH = torch.einsum("nge,enh->gnh", *exact)
    pull = torch.randn(wanted_GNH.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = [wanted_GNH.detach(), *torch.autograd.grad((wanted_GNH * pull).sum(), exact)]
    for dtype, within in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        for value, right in zip(mixed(gate_NGE.to(dtype), expert_ENH.to(dtype)), wanted, strict=True):
            assert value is not None
            assert value.dtype is dtype
            torch.testing.assert_close(value.double(), right, atol=within, rtol=within)


def test_mixtures_on_another_device_are_one_product():
    """Bags are a shortcut of CPUs, while training."""
    ran = {}
    for device, grad in (("cpu", True), ("cpu", False), ("meta", True)):
        gate_NGE = torch.ones(6, 2, 3, device=device, requires_grad=grad)
        with Operations() as operations_of:
            mix(gate_NGE, torch.ones(3, 6, 4, device=device))
        ran[device, grad] = {"_embedding_bag_forward_only", "bmm"} & set(operations_of.names)
    assert ran == {("cpu", True): {"_embedding_bag_forward_only"}, ("cpu", False): {"bmm"}, ("meta", True): {"bmm"}}
