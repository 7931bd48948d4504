"""A relaxed layer is one thing, whatever it is made of."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.lattice.drift import Drift
from anarch_core.layers.base import RelaxedLayer, relaxed_layers, whole_modules
from anarch_core.relaxation.surgery import candidates
from anarch_core.relaxation.verbs import drift, project


class Inner(RelaxedLayer):
    """A layer that doubles."""

    relaxation = "inner"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def project(self) -> nn.Module:
        return nn.Conv1d(1, 1, 1)

    def drift(self, reference: nn.Module | None = None) -> Drift:
        return Drift(shared=1.0, unshared=0.0, off_local=0.0)

    def split(self, tensor, name="weight"):
        return tensor, torch.zeros_like(tensor), torch.zeros_like(tensor)


class Outer(Inner):
    """A relaxed layer that holds another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()


def network() -> nn.Module:
    return nn.Sequential(Outer(), nn.Conv1d(1, 1, 1), Inner(), nn.ReLU())


def test_what_a_relaxed_layer_is_made_of_is_not_listed():
    assert [path for path, _ in whole_modules(network())] == ["", "0", "1", "2", "3"]
    assert list(relaxed_layers(network())) == ["0", "2"]
    assert list(candidates(network(), (nn.Conv1d, RelaxedLayer))) == ["0", "1", "2"]


def test_a_network_may_be_a_relaxed_layer():
    assert list(relaxed_layers(Outer())) == [""]


def test_it_is_projected_and_counted_once():
    assert drift(network()).total.shared == 2.0
    assert [type(module).__name__ for module in project(network())] == ["Conv1d", "Conv1d", "Conv1d", "ReLU"]
