"""Descent inside the backward pass against ``torch.optim.SGD``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from anarch_core.lattice.families import EFCN, LCN
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.locally_connected import LocallyConnectedLayer
from anarch_core.ops.fused import fused_sgd

X = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
KINDS = {
    "efcn": (FullyConnectedLayer, EFCN, 1),
    "lcn": (LocallyConnectedLayer, LCN, 1),
    "lcn with gathered rows": (LocallyConnectedLayer, LCN, 2),
}


def network(kind="efcn"):
    torch.manual_seed(1)
    layer, family, groups = KINDS[kind]
    geometry = ConvGeometry.of(nn.Conv1d(2, 2, 3, padding=1, groups=groups), (5,))
    model = nn.Sequential(layer(family, geometry, X), nn.Tanh(), layer(family, geometry, X), nn.Flatten(), nn.Linear(10, 3, dtype=X.dtype))
    for module in model[0], model[2]:
        module.reset_parameters()
    return model


def train(model, optimizer, *, fused, steps=5, forward=None):
    context = fused_sgd if fused else (lambda _: torch.enable_grad())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.5 / (1 + step)
        with context(optimizer):
            loss = cross_entropy((forward or model)(X), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"maximize": True, "weight_decay": 0.01}, {"fused": True, "weight_decay": 0.1}],
)
def test_the_same_trajectory(kind, settings):
    results = []
    for fused in (False, True):
        model = network(kind)
        results.append(train(model, torch.optim.SGD(model.parameters(), lr=1.0, **settings), fused=fused))
    assert_same(*results)


def test_one_rate_and_decay_for_each_group_of_parameters():
    results = []
    for fused in (False, True):
        model = network()
        groups = [{"params": model[0].parameters()}, {"params": model[2:].parameters(), "lr": 0.03, "weight_decay": 0.2}]
        results.append(train(model, torch.optim.SGD(groups, lr=1.0), fused=fused))
    assert_same(*results)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_is_kept_of_a_weight_that_backward_updates(kind):
    model = network(kind)
    train(model, torch.optim.SGD(model.parameters(), lr=1.0), fused=True)
    assert model[0].weight.grad is None
    assert model[2].weight.grad is None
    assert model[0].bias.grad is not None
    assert model[4].weight.grad is not None


def test_other_optimizers_work_as_ever():
    results = []
    for fused in (False, True):
        model = network()
        results.append(train(model, torch.optim.Adam(model.parameters(), lr=0.1), fused=fused))
    assert_same(*results, tolerance=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_used_twice_gets_its_whole_gradient(kind):
    results = []
    for fused in (False, True):
        model = network(kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
        results.append(train(model, optimizer, fused=fused, forward=lambda x, model=model: model(model[0](x))))
    assert_same(*results)


def test_a_layer_computed_again_in_backward():
    results = []
    for fused in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        results.append(
            train(model, optimizer, fused=fused, forward=lambda x, model=model: model[1:](checkpoint(model[0], x, use_reentrant=False)))
        )
    assert_same(*results)


def test_a_frozen_weight_stays():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1), fused=True)
    assert_same(model[0].weight, before, tolerance=0)


@pytest.mark.parametrize("kind", KINDS)
def test_backward_outside_of_a_step_and_substituted_weights_are_left_alone(kind):
    model = network(kind)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    cross_entropy(model(X), Y).backward()
    assert model[0].weight.grad is not None
    substitutes = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    with fused_sgd(torch.optim.SGD(model.parameters(), lr=1.0)):
        cross_entropy(functional_call(model, substitutes, (X,)), Y).backward()
    assert substitutes["0.weight"].grad is not None
    assert_same([parameter.detach() for parameter in model.parameters()], before, tolerance=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_forward_pass_after_backward_is_refused(kind):
    model = network(kind)
    with fused_sgd(torch.optim.SGD(model.parameters(), lr=1.0)):
        cross_entropy(model(X), Y).backward()
        with pytest.raises(RuntimeError, match="one forward pass, one backward pass"):
            model(X)


def test_bfloat16_autocast_keeps_the_ordinary_path():
    model = network().float()
    with fused_sgd(torch.optim.SGD(model.parameters(), lr=1.0)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(X.float()), Y)
        loss.backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_keeps_the_ordinary_path(kind):
    model = network(kind)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with fused_sgd(torch.optim.SGD(model.parameters(), lr=1.0)):
        y = vmap(model)(torch.stack([X, X]))
        y.sum().backward()
    assert_same(y[1], model(X))
    assert model[0].weight.grad is not None
    assert_same([parameter.detach() for parameter in model.parameters()], before, tolerance=0)


@pytest.mark.parametrize("kind", ["efcn", "lcn"])
def test_a_compiled_network_is_trained_by_the_optimizer(kind):
    results = []
    for fused in (False, True):
        model = network(kind)
        forward = torch.compile(model, fullgraph=True, backend="aot_eager") if fused else None
        results.append(train(model, torch.optim.SGD(model.parameters(), lr=1.0), fused=fused, steps=2, forward=forward))
    torch.compiler.reset()
    assert_same(*results)
