"""Descent inside the backward pass against ``torch.optim.SGD``."""

from __future__ import annotations

import contextlib

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
from anarch_core.ops.fused import Whole, clip_norm, fused_sgd, linear

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


class Dense(nn.Module):
    """Layers of which the first has many more weights than a batch has numbers, so that its descent waits, and the last has not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        shapes = [(50, 20), (50,), (3, 50)]
        self.first, self.bias, self.last = (nn.Parameter(0.3 * torch.randn(shape, dtype=torch.float64)) for shape in shapes)

    def forward(self, x):
        return linear(linear(x, self.first, self.bias).tanh(), self.last, None)


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"momentum": 0.9}], ids=str)
@pytest.mark.parametrize("largest", [1e-3, 0.3, 1e3])
def test_clipped_steps_are_torch_s(settings, largest):
    x, y = torch.randn(4, 20, dtype=torch.float64), torch.arange(4) % 3
    results = []
    for ours in (True, False):
        model = Dense()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, **settings)
        waited = []
        for _ in range(3):
            whole = Whole(largest)
            with fused_sgd(optimizer, whole) if ours else contextlib.nullcontext():
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                waited += [descent.weight is model.first for descent in whole.descents]
                if ours:
                    clip_norm(optimizer, whole)
                else:
                    nn.utils.clip_grad_norm_(model.parameters(), largest)
                optimizer.step()
        assert waited == [True] * 3 * (ours and "momentum" not in settings)
        results.append([parameter.detach() for parameter in model.parameters()])
    assert_same(*results)


def test_a_norm_that_shortens_nothing_is_told_on_the_way():
    x, y, expected = torch.randn(4, 20, dtype=torch.float64), torch.arange(4) % 3, Dense()
    gradients = torch.autograd.grad(cross_entropy(expected(x), y), expected.parameters())
    model, alone = Dense(), Dense()
    for each, whole in (model, Whole(None)), (alone, None):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.5)
        with fused_sgd(optimizer, whole):
            cross_entropy(each(x), y).backward()
            if whole is not None:
                assert_same(clip_norm(optimizer, whole), torch.linalg.vector_norm(torch.cat([*map(torch.flatten, gradients)])))
                assert len(whole.norms) == 1
            optimizer.step()
    assert torch.equal(model.first, alone.first)


def test_a_learning_rate_beyond_the_numbers_of_a_weight_leaves_none_finite():
    weight = nn.Parameter(torch.ones(3, 2))
    with fused_sgd(torch.optim.SGD([weight], lr=1e300)):
        linear(torch.ones(1, 2), weight, None).sum().backward()
    assert not weight.isfinite().any()


def test_a_weight_that_is_used_twice_does_not_wait():
    model = Dense()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    whole = Whole(1.0)
    with fused_sgd(optimizer, whole):
        (
            linear(torch.ones(2, 20).double(), model.first, None).sum() + linear(torch.ones(1, 20).double(), model.first, None).sum()
        ).backward()
        assert whole.descents == []
    assert torch.equal(model.first.grad, torch.full((50, 20), 3.0, dtype=torch.float64))


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


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}], ids=str)
def test_bfloat16_autocast_descends_on_a_card(monkeypatch, settings):
    """As on one, the factors of the gradient are rounded, their product is not: it is nearer to that of float32 than autograd's."""
    monkeypatch.setattr("anarch_core.ops.fused.ROUNDED_ON", {"cpu"})
    monkeypatch.setattr("anarch_core.ops.sparse_product.pays", lambda *operands: False)
    weights = []
    for rounded, descends in (False, False), (True, False), (True, True):
        model = network().float()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, **settings)
        with fused_sgd(optimizer) if descends else contextlib.nullcontext():
            with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
                loss = cross_entropy(model(X.float()), Y)
            loss.backward()
            assert (model[0].weight.grad is None) == descends
            optimizer.step()
        weights.append(model[0].weight.detach())
    exact, ordinary, descended = weights
    assert (descended - exact).norm() <= (ordinary - exact).norm()
    assert (descended - ordinary).norm() <= 2**-7 * (exact - network().float()[0].weight).norm()


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
