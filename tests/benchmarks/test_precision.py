"""TF32 as emulated: ten bits, in products alone, in both directions."""

from __future__ import annotations

import precision
import pytest
import torch
from torch import nn


def test_numbers_are_rounded_to_ten_bits_of_mantissa() -> None:
    x = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-10 + 2**-12), 0.0, 3e38, -1e-30])
    expected = torch.tensor([1.0, 1 + 2**-10, 1.0, 1 + 2**-9, -(1 + 2**-10), 0.0])
    assert torch.equal(precision.tf32(x)[:6], expected)
    torch.testing.assert_close(precision.tf32(x), x, rtol=2**-11, atol=0)


@pytest.mark.parametrize("layer", [nn.Linear(6, 4, bias=False), nn.Conv2d(2, 3, 3, bias=False)])
def test_products_are_taken_of_rounded_operands_forwards_and_backwards(layer: nn.Module) -> None:
    x = torch.randn(5, 6, requires_grad=True) if isinstance(layer, nn.Linear) else torch.randn(5, 2, 4, 4, requires_grad=True)
    with precision.EmulatedTF32():
        y = layer(x)
        (seen,) = torch.autograd.grad(y, x, grad := torch.randn_like(y))
    rounded = type(layer)(*([6, 4] if isinstance(layer, nn.Linear) else [2, 3, 3]), bias=False)
    rounded.weight.data = precision.tf32(layer.weight.data)
    inputs = precision.tf32(x.detach()).requires_grad_()
    expected = rounded(inputs)
    (wanted,) = torch.autograd.grad(expected, inputs, precision.tf32(grad))
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen, wanted, rtol=1e-6, atol=1e-6)
    assert (y - layer(x)).abs().max() > 1e-5


def test_precisions_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr(precision, "STEPS", 3)
    (table,) = precision.tables(channels=4)
    found = {name: [float(cell) for cell in cells] for name, *cells in table.rows}
    double, single, tf32, half = found.values()
    assert len(table.columns) == len(single) + 1
    for column in 0, 1, 4:
        assert double[column] < 1e-14
        assert single[column] < 3e-6
        assert tf32[column] < 1e-2
        assert half[column] < 1e-1
    assert single[0] < tf32[0] < half[0]
