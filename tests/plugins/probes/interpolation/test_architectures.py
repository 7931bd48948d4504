"""Every method on networks of several architectures: batch norm, unshared and dense layers, attention, masks, tied blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.models import build_model
from anarch_core.paths import interpolate, layer_by_layer
from anarch_core.paths.ends import ends
from anarch_core.training import evaluate

METHODS = ("linear", "curvilinear", "string", "band", "bezier", "polygon")
SIGNAL, IMAGE = (1, 16), (1, 4, 4)
VIT = {"width": 8, "depth": 2, "heads": 2}


def networks(model: str, shape: tuple[int, ...], options: dict[str, Any], relaxation: str | None) -> tuple[nn.Module, nn.Module]:
    """Two of them in double precision, with weights of their own and batch-norm statistics of some data."""
    found = []
    for seed in (0, 1):
        network = build_model(model, input_shape=shape, classes=3, options=options, seed=seed).double()
        if relaxation is not None:
            network = relax(network, relaxation, example_input=torch.zeros(2, *shape, dtype=torch.float64)).model
        torch.manual_seed(seed)
        with torch.no_grad():
            network.train()(torch.randn(20, *shape, dtype=torch.float64))
        found.append(network.eval())
    return found[0], found[1]


def data_of(shape: tuple[int, ...]) -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(30, *shape, dtype=torch.float64), torch.arange(30) % 3
    return TensorData(name="toy", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:], classes=3)


CASES = [
    ("resnet20", IMAGE, {}, None),
    ("separable", IMAGE, {}, "ungroup"),
    ("p4-cnn", (1, 8, 8), {}, "p4"),
    ("cnn1d", SIGNAL, {"channels": 3}, "lcn"),
    ("cnn1d", SIGNAL, {"channels": 3}, "efcn"),
    ("vit", SIGNAL, VIT, None),
    ("vit", SIGNAL, {**VIT, "kv_heads": 1}, "heads"),
    ("vit", SIGNAL, {**VIT, "tied": True}, None),
    ("pruned-mlp", SIGNAL, {}, None),
]


@pytest.mark.parametrize(("model", "shape", "options", "relaxation"), CASES)
def test_every_method_goes_from_one_network_to_the_other(model, shape, options, relaxation) -> None:
    a, b = networks(model, shape, options, relaxation)
    data = data_of(shape)
    kept = [copy.deepcopy(network.state_dict()) for network in (a, b)]
    given = None
    for method in METHODS:
        profile = interpolate(a, b, data, method=method, points=3, steps=2, curve_steps=2, batch_size=10)
        losses = [score.loss for score in profile.train]
        assert profile.train_barrier.excess is not None
        given = given or (losses[0], losses[-1])
        assert (losses[0], losses[-1]) == pytest.approx(given, rel=1e-10)
        if profile.statistics_shift == 0:  # without batch norm the ends are the networks as they are
            assert losses[0] == pytest.approx(evaluate(a, data.x_train, data.y_train).loss, rel=1e-10)
            assert losses[-1] == pytest.approx(evaluate(b, data.x_train, data.y_train).loss, rel=1e-10)
    for network, before in zip((a, b), kept, strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("model", "shape", "options", "relaxation"), CASES[1:])
def test_layers_that_move_alone_are_all_of_the_network(model, shape, options, relaxation) -> None:
    a, b = networks(model, shape, options, relaxation)
    found = layer_by_layer(a, b, data_of(shape), points=3)
    masks = [mask.numel() for mask, _ in ends(a, b).buffers.values()]  # they differ where weights are pruned, and are mixed
    assert sum(layer.size for layer in found.layers.values()) == sum(map(torch.numel, a.parameters())) + sum(masks)
    assert all(layer.train is not None for layer in found.layers.values())
