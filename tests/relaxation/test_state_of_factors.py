"""Optimizer state over a switch at which several parameters become one: what each of them gives is added."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.base import AbstractRelaxation
from anarch_core.relaxation.optimizer_state import carry_optimizer_state
from anarch_core.relaxation.own_loop import switch
from anarch_core.relaxation.verbs import relax


class Outer(nn.Module):
    """y = b aᵀ x."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4).double()), nn.Parameter(torch.randn(3).double())

    def forward(self, x):
        return nn.functional.linear(x, torch.outer(self.b, self.a))


class Matrix(RelaxedLayer):
    relaxation = "matrix"

    def __init__(self, parent):
        super().__init__()
        self.weight = nn.Parameter(torch.outer(parent.b, parent.a).detach())

    def forward(self, x):
        return nn.functional.linear(x, self.weight)

    def reset_parameters(self):
        nn.init.normal_(self.weight)

    def project(self):
        return Outer()

    def drift(self, reference=None):
        return Drift(shared=1.0, unshared=0.0, off_local=0.0)

    def split(self, tensor, name="weight"):
        return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)


class MatrixRelaxation(AbstractRelaxation):
    """Of which either factor tells something: sums over the entries of a row or column."""

    targets = (Outer,)

    def refusal(self, site):
        return None

    def cost(self, site):
        return Cost(parameters=12, flops=24, itemsize=8)

    def lift(self, site):
        return Matrix(site.module)

    def transport(self, site, layer, name, tensor, role):
        return {"weight": spread(name, tensor)}


def spread(name, tensor):
    return (tensor if name == "a" else tensor.unsqueeze(1)).expand(3, 4).clone()


@pytest.fixture
def registry() -> Registry:
    info = RelaxationInfo(name="matrix", summary="s", target=f"{__name__}:MatrixRelaxation")
    assert sys.modules[__name__].Outer is Outer
    plugin = PluginRecord(name="matrix", module="m", distribution="x", version="1", status=Status.LOADED, components=(info,))
    return Registry((*get_registry().plugins, plugin))


@pytest.mark.parametrize("own_loop", [False, True])
@pytest.mark.parametrize(("kind", "settings"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.NAdam, {}), (torch.optim.ASGD, {})])
def test_state_of_both_factors_is_added_and_counters_are_not(kind, settings, own_loop, registry):
    torch.manual_seed(0)
    model, x = nn.Sequential(Outer()), torch.randn(5, 4).double()
    optimizer = kind(model.parameters(), lr=0.01, **settings)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    of_a, of_b = (dict(optimizer.state[model[0].get_parameter(name)]) for name in "ab")
    if own_loop:
        switched = switch(model, optimizer, "matrix", example_input=x, optimizer_state="carry", registry=registry)
        network, fate = model, switched.optimizer_state
    else:
        relaxed = relax(model, "matrix", example_input=x, registry=registry)
        network, source = relaxed.model, optimizer
        optimizer = kind(network.parameters(), lr=0.01, **settings)
        fate = carry_optimizer_state(relaxed, source, optimizer)
    assert fate == {"0.weight": "carried"}
    state = optimizer.state[network[0].weight]
    assert state.keys() == of_a.keys()
    for key, value in state.items():
        expected = spread("a", of_a[key]) + spread("b", of_b[key]) if torch.is_tensor(value) and value.ndim else of_a[key]
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected)), key
