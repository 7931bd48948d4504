"""The ways to take the product of a global kernel agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.lattice.families import label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_plugins.relaxations.shared import relaxation, rows
from anarch_plugins.relaxations.shared.family import GLOBAL
from anarch_plugins.relaxations.shared.fourier import correlate
from anarch_plugins.relaxations.shared.traced import convolve

CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 3, padding=1), (7,)),
    (nn.Conv1d(2, 3, 3, stride=2, padding=1, padding_mode="circular"), (8,)),
    (nn.Conv2d(3, 4, 3, padding=1), (6, 5)),
    (nn.Conv2d(2, 3, (4, 3), stride=2, padding=2), (9, 8)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (5, 6)),
    (nn.Conv2d(2, 2, 3, padding=2, dilation=2, padding_mode="replicate"), (6, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (5, 4)),
    (nn.Conv3d(2, 2, 3, padding=1), (4, 3, 5)),
]


def operands(conv, size, dtype=torch.float64):
    geometry = ConvGeometry.of(conv, size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, conv.in_channels, *size, dtype=dtype, generator=generator, requires_grad=True)
    shape = (conv.out_channels, conv.in_channels // conv.groups, *label_counts(GLOBAL, geometry))
    return geometry, x, torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True)


@pytest.mark.parametrize("small", [0, 2**40], ids=["by rows", "as one matrix"])
@pytest.mark.parametrize(("conv", "size"), CONVOLUTIONS)
def test_outputs_and_gradients_are_those_of_the_transform(monkeypatch, conv, size, small):
    monkeypatch.setattr(rows, "SMALL", small)
    geometry, x, weight = operands(conv, size)
    expected = correlate(x, weight, GLOBAL, geometry)
    found = rows.product_by_rows(x, weight, GLOBAL, geometry)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    direction = torch.randn_like(expected)
    for one, other in zip(*(torch.autograd.grad(y, (x, weight), direction) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("conv", "size"), [*CONVOLUTIONS, (nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2), (6, 5))])
def test_a_graph_holds_the_same_product(conv, size):
    geometry, x, weight = operands(conv, size)
    torch.testing.assert_close(convolve(x, weight, geometry), correlate(x, weight, GLOBAL, geometry), rtol=1e-11, atol=1e-11)


def test_by_rows_is_twice_differentiable(monkeypatch):
    monkeypatch.setattr(rows, "SMALL", 0)
    geometry, x, weight = operands(nn.Conv2d(1, 2, 2, padding=1, stride=2), (3, 3))
    assert torch.autograd.gradcheck(lambda x, w: rows.product_by_rows(x, w, GLOBAL, geometry), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: rows.product_by_rows(x, w, GLOBAL, geometry), (x, weight))


@pytest.mark.parametrize("small", [0, 2**40], ids=["by rows", "as one matrix"])
def test_bfloat16_autocast_is_as_good_as_bfloat16_numbers(monkeypatch, small):
    monkeypatch.setattr(rows, "SMALL", small)
    geometry, x, weight = operands(nn.Conv2d(3, 4, 3, padding=1), (6, 5), torch.float32)
    expected = correlate(x.double(), weight.double(), GLOBAL, geometry)
    with torch.autocast("cpu", torch.bfloat16):
        y = rows.product_by_rows(x, weight, GLOBAL, geometry)
    assert (y - expected).abs().max() < 2**-7 * expected.abs().max()
    y.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_dense_products_for_small_images_and_transforms_for_large_ones():
    assert relaxation.by_rows(ConvGeometry.of(nn.Conv2d(3, 64, 4, stride=2, padding=2), (32, 32)))
    assert not relaxation.by_rows(ConvGeometry.of(nn.Conv2d(64, 64, 3, padding=1), (56, 56)))
    assert not relaxation.by_rows(ConvGeometry.of(nn.Conv2d(4, 4, 3, padding=1, groups=2), (8, 8)))
