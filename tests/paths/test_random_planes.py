"""Planes of random directions whose filters are as long as the network's, against filters found by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.layers import LatticeLayer
from anarch_core.paths import random_plane
from anarch_core.paths.filters import random_direction
from anarch_core.training.evaluation import evaluate


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x = torch.randn(70, 2, 9, dtype=torch.float64)
    y = (x[:, 0, 2] > 0).long() + (x[:, 1, 7] > 0).long()
    return TensorData(name="toy", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], classes=3)


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    norms = [nn.BatchNorm1d(4)] if norm else []
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), *norms, nn.ReLU(), nn.Conv1d(4, 2, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    ).double()


def direction(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    return random_direction(model, torch.Generator().manual_seed(seed))


def test_filters_are_as_long_as_the_networks() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 6, 3, groups=2),
            "up": nn.ConvTranspose2d(4, 6, 3, groups=2),
            "dense": nn.Linear(5, 4),
            "norm": nn.LayerNorm((2, 3)),
            "table": nn.Embedding(3, 4),
        }
    ).double()
    found = direction(model)
    assert found.keys() == {"conv.weight", "up.weight", "dense.weight", "table.weight"}, "no biases, no normalisation"
    for name in ("conv.weight", "dense.weight", "table.weight"):
        for drawn, filter in zip(found[name], model.get_parameter(name).detach(), strict=True):
            assert float(drawn.norm()) == pytest.approx(float(filter.norm()), rel=1e-12)
    for group in (slice(0, 2), slice(2, 4)):
        for output in range(3):
            drawn, filter = (tensor.detach()[group, output] for tensor in (found["up.weight"], model["up"].weight))
            assert float(drawn.norm()) == pytest.approx(float(filter.norm()), rel=1e-12)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
def test_a_filter_of_a_relaxed_layer_is_what_one_output_reads_by(data, relaxation) -> None:
    """Found by its gradient: the weights that an output depends on, and all that share with these by reading for the same bias."""
    relaxed = relax(network(), relaxation, example_input=data.x_train[:1]).model
    with torch.no_grad():
        for parameter in relaxed.parameters():
            parameter.add_(torch.randn_like(parameter))
    found = direction(relaxed)
    for path, layer in relaxed.named_modules():
        if not isinstance(layer, LatticeLayer):
            continue
        geometry = layer.geometry
        x = torch.randn(1, geometry.in_channels, *geometry.input_size, dtype=torch.float64)
        bias = layer.bias_view(layer.bias.detach())
        for position in range(len(bias)):
            for channel in range(geometry.out_channels):
                seen = torch.zeros_like(layer.weight, dtype=torch.bool)
                outputs = layer(x)[0, channel]
                for output in outputs:
                    weight, of_bias = torch.autograd.grad(output, [layer.weight, layer.bias], retain_graph=True)
                    if layer.bias_view(of_bias)[position, channel] != 0:
                        seen |= weight.abs() > 1e-12
                drawn, filter = (tensor.detach()[seen].norm() for tensor in (found[f"{path}.weight"], layer.weight))
                assert float(drawn) == pytest.approx(float(filter), rel=1e-12)


@pytest.mark.parametrize("relaxation", [None, "efcn"])
@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_layers_scaled_against_each_other_have_one_surface(data, relaxation, scale) -> None:
    model = network() if relaxation is None else relax(network(), relaxation, example_input=data.x_train[:1]).model
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other[0].parameters():
            parameter.mul_(scale)
        other[2].weight.div_(scale)
    surfaces = [random_plane(each, data, points=5, seed=3).surface for each in (model, other)]
    torch.testing.assert_close(surfaces[0].table("train"), surfaces[1].table("train"), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(surfaces[0].table("test", "accuracy"), surfaces[1].table("test", "accuracy"))


@pytest.mark.parametrize("norm", [False, True])
def test_points_are_networks_made_by_hand(data, norm) -> None:
    model = network(norm=norm)
    found = random_plane(model, data, points=3, radius=0.5, seed=5)
    generator = torch.Generator().manual_seed(5)
    along, across = (random_direction(model, generator) for _ in range(2))
    hand = copy.deepcopy(model)
    with torch.no_grad():
        for name in along:
            hand.get_parameter(name).add_(0.5 * along[name] - 0.5 * across[name])
    for made, loss in ((hand, found.surface.table("train")[0, 2]), (copy.deepcopy(model), found.surface.table("train")[1, 1])):
        made.eval()
        if norm:
            hidden = made[0](data.x_train).detach()
            made[1].running_mean.copy_(hidden.mean((0, 2)))
            made[1].running_var.copy_(hidden.var((0, 2)))
        assert float(loss) == pytest.approx(evaluate(made, data.x_train, data.y_train).loss, rel=1e-12)
    assert found.train.loss == float(found.surface.table("train")[1, 1])
    vectors = [torch.cat([tensor.flatten() for tensor in each.values()]) for each in (along, across)]
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(*vectors, dim=0)), rel=1e-10)


def test_the_seed_decides(data) -> None:
    tables = [random_plane(network(), data, points=2, seed=seed).surface.table("train") for seed in (0, 0, 1)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_what_is_not_trained_stays(data) -> None:
    model = network()
    model[0].requires_grad_(False)
    assert direction(model).keys() == {"2.weight", "5.weight"}
    with pytest.raises(ProbeError, match="has no weights with filters that are trained"):
        random_plane(model.requires_grad_(False), data, points=2)


def test_networks_stay_as_they_were(data) -> None:
    model = network(norm=True)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = random_plane(model, data, points=2, samples=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "plane of random directions" in str(found.overview())


@pytest.mark.parametrize("radius", [0, -1, math.inf, math.nan])
def test_a_radius_that_is_none_is_refused(data, radius) -> None:
    with pytest.raises(ProbeError, match="the radius of a plane is above 0"):
        random_plane(network(), data, radius=radius)
