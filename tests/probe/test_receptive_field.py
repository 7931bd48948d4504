from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.errors import ProbeError
from anarch_core.probe.receptive_field import chosen_layer, spatial_layers


def matrix(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix of a layer, [*output, *input], by its response to unit inputs."""
    size = math.prod(shape)
    zero = module(torch.zeros(1, *shape))
    columns = module(torch.eye(size).view(size, *shape)) - zero
    return columns.movedim(0, -1).unflatten(-1, shape).detach()


@pytest.mark.parametrize("relaxation", [None, "efcn", "lcn", "tiled", "shared"])
def test_filters_are_rows_of_the_matrix(relaxation) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)))
    example = torch.randn(1, 2, 6, 5)
    if relaxation:
        model = relax(model, relaxation, example_input=example).model
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
    layer = spatial_layers(model, example)["0"]
    dense = matrix(model[0], (2, 6, 5))
    for position in ((0, 0), (2, 1), (1, 3)):
        torch.testing.assert_close(layer.filters(position), dense[:, position[0], position[1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relaxation", [None, "efcn", "lcn", "tiled", "shared"])
def test_statistics_from_the_matrix(relaxation) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=1))
    example = torch.randn(1, 2, 9)
    if relaxation:
        model = relax(model, relaxation, example_input=example).model
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
    dense = matrix(model[0], (2, 9))
    square = dense.square().sum(2)
    centre = torch.arange(5) * 2.0
    offset = (torch.arange(9)[None] - centre[:, None]) ** 2
    distance = ((square * offset).sum(2) / square.sum(2)).sqrt().mean()
    participation = (square.sum(2) ** 2 / dense.pow(4).sum((2, 3))).mean()
    found = spatial_layers(model, example)["0"].statistics()
    assert found == pytest.approx((float(distance), float(participation)), rel=1e-4)


def test_the_relaxed_layer_is_chosen_first_and_unknown_ones_are_refused() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 2, 3, padding=1))
    example = torch.zeros(1, 1, 6)
    relaxed = relax(model, "lcn", example_input=example, layers="2").model
    assert chosen_layer(spatial_layers(relaxed, example), None).path == "2"
    assert chosen_layer(spatial_layers(model, example), None).path == "0"
    with pytest.raises(ProbeError, match="no convolution or relaxed layer '1'; the network has 0, 2"):
        chosen_layer(spatial_layers(model, example), "1")


def test_weights_that_are_not_finite_have_no_spread() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3))
    with torch.no_grad():
        model[0].weight[0, 0, 0] = torch.nan
    layer = spatial_layers(model, torch.randn(2, 1, 8))["0"]
    assert all(math.isnan(value) for value in layer.statistics())
