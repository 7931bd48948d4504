"""Every contender does the same work: that of the convolution it was made from."""

from __future__ import annotations

import functools
import itertools

import local
import pytest
import torch
from local_layers import Broadcast, KerasMasked, KerasSlices, Unfolded, UnfoldedGroups
from torch import nn

KINDS = [functools.partial(Unfolded, form="einsum"), Unfolded, Broadcast, KerasSlices, KerasMasked]


LAYERS = [
    *itertools.product(KINDS, [nn.Conv2d(3, 4, 4, stride=2, padding=2), nn.Conv2d(2, 3, 5, padding=2, bias=False)]),
    (UnfoldedGroups, nn.Conv2d(4, 6, 3, padding=1, groups=2)),
]


@pytest.mark.parametrize(("kind", "conv"), LAYERS)
def test_layers_start_as_their_convolution_forwards_and_backwards(kind, conv: nn.Conv2d) -> None:
    x = torch.randn(3, conv.in_channels, 8, 8, requires_grad=True)
    layer = kind(conv, 8)
    y, expected = layer(x), conv(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    for actual, wanted in zip(torch.autograd.grad(y, x, grad), torch.autograd.grad(expected, x, grad), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_outside_the_receptive_field_learn_nothing_and_the_others_are_not_shared(kind) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    layer, x = kind(conv, 4), torch.randn(5, 2, 4, 4)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.parameters())
    met = sum(min(i + 2, 4) - max(i - 1, 0) for i in range(4)) ** 2  # pairs of a position and a pixel of its field
    assert int((gradient != 0).sum()) == met * 2 * 3


class Recorder(torch.autograd.Function):
    """The identity, in some order of its axes in memory; notes how its gradient comes."""

    seen: list[tuple[int, ...]] = []

    @staticmethod
    def forward(ctx, x, order):
        return x.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])

    @staticmethod
    def backward(ctx, grad):
        Recorder.seen.append(grad.stride())
        return grad, None


@pytest.mark.parametrize(
    ("order", "strides"), [((0, 1, 2, 3), (48, 16, 4, 1)), ((0, 2, 3, 1), (48, 1, 12, 3)), ((2, 3, 0, 1), (48, 16, 4, 1))]
)
def test_an_output_gradient_is_channels_last_where_the_output_is_and_else_contiguous(order, strides) -> None:
    class Network(nn.Module):
        def forward(self, x):
            return Recorder.apply(x, order)

    Recorder.seen.clear()
    local.gradients(Network(), torch.randn(2, 3, 4, 4, requires_grad=True))()
    assert Recorder.seen == [strides]


def test_a_network_of_them_is_the_convolutional_one() -> None:
    torch.manual_seed(0)
    unfolded = local.network(Unfolded)
    torch.manual_seed(0)
    slices = local.network(KerasSlices)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(unfolded(x), slices(x), rtol=1e-4, atol=1e-5)
    assert not [module for module in unfolded.modules() if isinstance(module, nn.Conv2d)]
