"""A layer of the lattice keeps its weight in whatever layout it likes: all that is known of it goes through ``weight_view``."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from torch import nn

from anarch_core.lattice import EFCN, PARTS, AbstractFamily, ConvGeometry
from anarch_core.layers import FullyConnectedLayer, LatticeLayer
from anarch_core.relaxation import lift_layer
from anarch_core.testing.convolutions import Case, cases

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")


class Transposed(FullyConnectedLayer):
    """The eFCN with its weight stored [inputs, outputs]. It knows nothing of drift, and inherits only what asks ``weight_view``."""

    off_local_norm2 = LatticeLayer.off_local_norm2

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return super().weight_shape(family, geometry)[::-1]

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return super().weight_view(tensor.mT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.flatten(1), self.weight.mT, self.bias).unflatten(
            1, (self.geometry.out_channels, *self.geometry.output_size)
        )


def pair(case: Case) -> tuple[FullyConnectedLayer, Transposed]:
    """The same map in both layouts: random, with a convolution in it."""
    geometry = ConvGeometry.of(case.module, case.x.shape[2:])
    with torch.no_grad():
        plain, other = (lift_layer(case.module, geometry, EFCN, layer) for layer in (FullyConnectedLayer, Transposed))
        plain.weight.add_(torch.randn_like(plain.weight))
        other.weight.copy_(plain.weight.mT)
    return plain, other


@given(case=cases())
def test_drift_does_not_depend_on_the_layout(case: Case) -> None:
    plain, other = pair(case)
    torch.testing.assert_close(other(case.x), plain(case.x))
    before = lift_layer(case.module, plain.geometry, EFCN, Transposed)
    expected = attrs.asdict(plain.drift(before))
    assert attrs.asdict(other.drift(before)) == {
        name: value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in expected.items()
    }
    assert other.drift().total == pytest.approx(float(plain.weight.detach().square().sum()), rel=1e-9)


@given(case=cases())
def test_parts_and_projection_do_not_depend_on_the_layout(case: Case) -> None:
    plain, other = pair(case)
    for part in PARTS:
        torch.testing.assert_close(other.keep(other.weight, (part,)).mT, plain.keep(plain.weight, (part,)))
    torch.testing.assert_close(other.project().weight, plain.project().weight)


def test_what_connects_groups_is_off_local_in_any_layout() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2).double()
    plain, other = pair(Case(conv, torch.randn(1, 4, 3, 3, dtype=torch.float64)))
    blocks = plain.weight.detach().view(2, 2 * 9, 2, 2 * 9)
    between = float(blocks[0, :, 1].square().sum() + blocks[1, :, 0].square().sum())
    for layer in (plain, other):
        assert layer.drift().off_local >= between
    with torch.no_grad():
        within = torch.zeros_like(blocks)
        within[0, :, 0], within[1, :, 1] = blocks[0, :, 0], blocks[1, :, 1]
        other.weight.copy_(within.view_as(plain.weight).mT)
    assert plain.drift().off_local - other.drift().off_local == pytest.approx(between)
