"""Convolution over translations and quarter turns: equivariant, relaxed exactly, and back by the mean over orientations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core import project, relax
from anarch_core.errors import ConfigError, SurgeryError
from anarch_core.models import build_model
from anarch_core.relaxation import Site
from anarch_plugins.relaxations.p4.layer import P4Conv2d, turned
from anarch_plugins.relaxations.p4.relaxation import P4Relaxation
from tests.plugins.relaxations.explicit import check_generated, matrix
from tests.plugins.relaxations.p4.test_conformance import layers


def written_out(layer: Any) -> np.ndarray:
    """A, one number after the other: filter of orientation r at (a, b) is the filter at the place that r turns bring there."""
    k = layer.kernel_size

    def origin(r: int, a: int, b: int) -> tuple[int, int]:
        for _ in range(r):  # where a counterclockwise quarter turn takes its numbers from
            a, b = b, k - 1 - a
        return a, b

    def placed(theta: np.ndarray) -> np.ndarray:
        inputs = layer.in_channels if layer.lifting else 4 * layer.in_channels
        weight = np.zeros((4 * layer.out_channels, inputs, k, k))
        for (out, inp, a, b), _ in np.ndenumerate(weight):
            o, r = divmod(out, 4)
            if layer.lifting:
                weight[out, inp, a, b] = theta[(o, inp, *origin(r, a, b))]
            else:
                c, s = divmod(inp, 4)
                weight[out, inp, a, b] = theta[(o, c, (s - r) % 4, *origin(r, a, b))]
        return weight

    return matrix(placed, tuple(layer.weight.shape))


def test_is_exact_and_projects_as_least_squares_does() -> None:
    check_generated(layers(), P4Relaxation(None), written_out)


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), [(3, 1, 1, 8), (4, 1, 2, 7), (3, 2, 1, 9), (2, 2, 0, 4), (1, 1, 0, 3)])
def test_turning_the_input_turns_the_output(lifting: bool, kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    layer = P4Conv2d(2, 3, kernel, lifting=lifting, stride=stride, padding=padding, dtype=torch.float64)
    x = torch.randn(2, 2 if lifting else 8, side, side, dtype=torch.float64)
    given, expected = layer.symmetries()["rotation"]
    assert (layer(given(x)) - expected(layer(x))).abs().max() < 1e-13
    four_times = x
    for _ in range(4):
        four_times = given(four_times)
    assert torch.equal(four_times, x)


@pytest.mark.parametrize("side", [32, 28, 27, 7, 1])
def test_the_network_does_not_see_how_images_are_turned(side: int) -> None:
    model = build_model("p4-cnn", input_shape=(3, side, side), classes=10).double()
    x = torch.randn(3, 3, side, side, dtype=torch.float64)
    assert model(x).shape == (3, 10)
    assert (model(turned(x)) - model(x)).abs().max() < 1e-13


@pytest.mark.parametrize("shape", [(1, 40), (3, 8, 9), (3, 8, 8, 8)])
def test_only_square_images_can_be_turned(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="square images"):
        build_model("p4-cnn", input_shape=shape, classes=10)


def test_biases_of_the_four_orientations_go_back_to_their_mean() -> None:
    network, x = nn.Sequential(P4Conv2d(2, 3, 3, lifting=True)), torch.randn(1, 2, 5, 5)
    relaxed = relax(network, "p4", example_input=x).model
    with torch.no_grad():
        relaxed[0].free.bias.copy_(torch.arange(12.0))
    assert torch.equal(project(relaxed)[0].bias, torch.tensor([1.5, 5.5, 9.5]))


def test_a_relaxed_network_is_relaxed_no_further_where_filters_were_equal() -> None:
    network, x = build_model("p4-cnn", input_shape=(1, 8, 8), classes=3), torch.randn(2, 1, 8, 8)
    relaxed = relax(network, "p4", example_input=x)
    assert set(relaxed.sites) == {"features.0", "features.3", "features.6"}
    with pytest.raises(SurgeryError, match="a layer of p4, in which weights of the convolution are equal; project it first"):
        relax(relaxed.model, "lcn", example_input=x)


def test_other_layers_are_refused() -> None:
    site = Site(path="layer", module=nn.Conv2d(1, 1, 1), input_shape=(1, 2, 2), output_shape=(1, 2, 2))
    assert P4Relaxation(None).refusal(site) == "it is a Conv2d, no convolution over p4"
