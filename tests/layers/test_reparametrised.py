"""A layer that says which layer of the lattice it is has the way back, the drift, larger families and the probes of filters from that."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.lattice.families import LCN
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.layers.locally_connected import LocallyConnectedLayer
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.probe.coordinates import ParameterParts
from anarch_core.probe.receptive_field import spatial_layers
from anarch_core.relaxation.lattice import lift_layer
from anarch_core.relaxation.verbs import drift, project, relax


class Gains(ReparametrisedLayer):
    """A convolution with a gain for every position."""

    family = LCN

    def __init__(self, conv: nn.Conv1d, size: int) -> None:
        super().__init__(ConvGeometry.of(conv, (size,)))
        self.relaxation = "gains"
        self.conv = conv
        self.gain = nn.Parameter(torch.ones(self.geometry.positions, dtype=conv.weight.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, single = self.batched(x)
        y = self.gain * nn.functional.conv1d(x, self.conv.weight, None, self.conv.stride, self.conv.padding) + self.conv.bias[:, None]
        return y.squeeze(0) if single else y

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()
        nn.init.ones_(self.gain)

    def split(self, tensor, name="conv.weight"):
        shared = tensor.mean().expand_as(tensor) if name == "gain" else tensor
        return shared, tensor - shared, torch.zeros_like(tensor)

    @torch.no_grad()
    def lattice(self) -> LatticeLayer:
        layer = lift_layer(self.conv, self.geometry, LCN, LocallyConnectedLayer)
        axis = self.geometry.axes[0]
        position = torch.from_numpy(LCN.incidence(axis).pair // axis.size)
        layer.weight.mul_(self.gain[position].view(-1, 1, 1, 1))
        return layer


class Adaptive(Gains):
    """One whose map is not linear."""

    linear: ClassVar[bool] = False


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layer = Gains(nn.Conv1d(2, 3, 3, padding=1).double(), size=8)
    with torch.no_grad():
        layer.gain.uniform_(0.5, 1.5)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2).double())


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_projection_is_the_mean_filter_over_the_positions_where_a_tap_reads(network):
    back = project(network)[0]
    gain, weight = network[0].gain, network[0].conv.weight
    for tap, means in enumerate((gain[1:].mean(), gain.mean(), gain[:-1].mean())):
        torch.testing.assert_close(back.weight[..., tap], means * weight[..., tap])
    torch.testing.assert_close(back.bias, network[0].conv.bias)


def test_the_drift_is_that_of_the_lattice_layer_but_for_its_initialisation(network):
    found, equal = drift(network).total, network[0].lattice().drift()
    assert (found.shared, found.unshared, found.off_local) == (equal.shared, equal.unshared, equal.off_local)
    assert found.unshared > 0
    assert found.initial is None
    assert drift(network, network).total.moved == 0
    with pytest.raises(
        SurgeryError, match="expected the same gains layer at an earlier moment as the reference, got LocallyConnectedLayer"
    ):
        network[0].drift(network[0].lattice())


@pytest.mark.parametrize("family", ["lcn", "efcn"])
def test_larger_families_take_it_in_exactly(network, x, family):
    relaxed = relax(network, family, example_input=x)
    assert relaxed.report.exact
    assert drift(relaxed.model).total.unshared == pytest.approx(drift(network).total.unshared)


def test_a_map_that_depends_on_the_input_is_in_no_family(network, x):
    network[0].__class__ = Adaptive
    with pytest.raises(SurgeryError, match="0 cannot be relaxed: it is a layer of gains, whose map depends on its input; project it first"):
        relax(network, "efcn", example_input=x, layers="0")


def test_its_filters_are_seen_as_those_of_any_layer(network, x):
    layer = spatial_layers(network, x)["0"]
    torch.testing.assert_close(layer.filters([4])[:, :, 3:6], network[0].gain[4] * network[0].conv.weight)
    assert layer.module is network[0]


def test_it_has_no_orthonormal_coordinates_and_says_why(network, x):
    with pytest.raises(ProbeError, match="parameters of 0 have no orthonormal scale: those of gains are not weights"):
        ParameterParts.of(network, x)


def test_inputs_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match=r"made for inputs of shape \[2, 8\], got \[4, 2, 9\]"):
        network[0](torch.zeros(4, 2, 9, dtype=torch.float64))
