"""Layers say which symmetries they have; the probe's tools find them, also in what the layers became."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.errors import ProbeError
from anarch_core.layers import Link
from anarch_core.probe import symmetric_layers
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site


class Mirror(nn.Module):
    """Features times weights that are the same from both ends."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn((size + 1) // 2))
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.cat([self.weight, self.weight.flip(0)[self.size % 2 :]])

    def symmetries(self) -> dict[str, Any]:
        return {"mirror": (lambda x: x.flip(-1), lambda y: y.flip(-1))}


class Scale(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Free(AbstractConstraintRelaxation):
    name = "free"
    targets = (Mirror,)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        half = len(module.weight)
        labels = np.minimum(np.arange(module.size), np.arange(module.size)[::-1])
        constraint = Constraint((module.size,), (half,), [Incidence.of(labels, half)])
        return Loosened(free=Scale(module.size), links=[Link(parent="weight", constraint=constraint)])


def test_a_layer_that_names_a_symmetry_is_asked_how_far_it_keeps_it() -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(4, 5), Mirror(5), nn.ReLU()), torch.randn(3, 4)
    layer = symmetric_layers(network, x)["1"]
    assert layer.module is network[1]
    assert torch.equal(layer.input, network[0](x))
    assert layer.errors() == {"mirror": 0.0}


def test_what_was_relaxed_is_held_to_the_symmetries_that_it_had() -> None:
    torch.manual_seed(0)
    mirror = Mirror(5)
    relaxed = Free(None).lift(Site(path="0", module=mirror, input_shape=(5,), output_shape=(5,)))
    network, x = nn.Sequential(relaxed), torch.randn(3, 5)
    assert symmetric_layers(network, x)["0"].errors() == {"mirror": 0.0}
    with torch.no_grad():
        relaxed.free.weight[0] += 1.0
    error = symmetric_layers(network, x)["0"].errors()["mirror"]
    difference = torch.cat([x[:, -1], x[:, 0]]).norm() / relaxed(x).detach().norm()
    assert error == pytest.approx(float(difference), rel=1e-6)


def test_an_output_that_is_zero_keeps_and_breaks_nothing() -> None:
    network = nn.Sequential(Mirror(2))
    with torch.no_grad():
        network[0].weight.zero_()
    assert symmetric_layers(network, torch.ones(1, 2))["0"].errors() == {"mirror": None}


def test_layers_without_symmetries_or_called_twice_are_not_told_of() -> None:
    mirror = Mirror(4)
    assert symmetric_layers(nn.Sequential(nn.Linear(4, 4)), torch.ones(1, 4)) == {}
    assert symmetric_layers(nn.Sequential(mirror, mirror), torch.ones(1, 4)) == {}


@pytest.mark.parametrize("says", [None, ["mirror"], {"mirror": torch.flip}, {"mirror": (torch.flip, 1)}])
def test_symmetries_that_are_none_are_an_error_that_names_the_layer(says: Any) -> None:
    mirror = Mirror(2)
    mirror.symmetries = lambda: says  # type: ignore[method-assign]
    with pytest.raises(ProbeError, match=r"symmetries\(\) of 0, a Mirror, must give a mapping of names to pairs of functions"):
        symmetric_layers(nn.Sequential(mirror), torch.ones(1, 2))
