"""Forward and backward of a layer that shares its weights but is not local: a kernel as large as the image."""

from __future__ import annotations

import math

import torch
from measure import OURS, PRODUCTS, Case, Step
from torch import nn
from torch.nn import functional

from anarch_core.lattice.families import label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_plugins.relaxations.shared.family import GLOBAL
from anarch_plugins.relaxations.shared.fourier import correlate
from anarch_plugins.relaxations.shared.rows import product_by_rows

BATCH = 50
CONV, SIDE = nn.Conv2d(3, 64, 4, stride=2, padding=2), 32


def operands() -> tuple[ConvGeometry, torch.Tensor, torch.Tensor, torch.Tensor]:
    geometry = ConvGeometry.of(CONV, (SIDE, SIDE))
    x = torch.randn(BATCH, CONV.in_channels, SIDE, SIDE, requires_grad=True)
    weight = torch.randn(CONV.out_channels, CONV.in_channels, *label_counts(GLOBAL, geometry), requires_grad=True)
    return geometry, x, weight, torch.randn(BATCH, CONV.out_channels, *geometry.output_size)


def convolution() -> Step:
    """The layer as PyTorch lets one write it: every position multiplies the whole kernel, most of it with padded zeros."""
    geometry, x, weight, grad = operands()
    low, labels = GLOBAL.window(geometry.axes[0])
    reach = geometry.axes[0].stride * (geometry.axes[0].positions - 1)
    before, after = -low, low + reach + labels - SIDE

    def step() -> object:
        y = functional.conv2d(functional.pad(x, (before, after) * 2), weight, stride=CONV.stride)
        return torch.autograd.grad(y, (x, weight), grad)

    return step


def transforms() -> Step:
    geometry, x, weight, grad = operands()
    return lambda: torch.autograd.grad(correlate(x, weight, GLOBAL, geometry), (x, weight), grad)


def ours() -> Step:
    geometry, x, weight, grad = operands()
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = grad.contiguous(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(product_by_rows(x, weight, GLOBAL, geometry), (x, weight), grad)


def products() -> Step:
    """The three products of the dense matrix, which lies ready."""
    _, x, _, grad = operands()
    x, grad = x.detach().flatten(1), grad.flatten(1)
    matrix = torch.randn(grad.shape[1], x.shape[1])

    def step() -> None:
        functional.linear(x, matrix)
        grad @ matrix
        grad.t() @ x

    return step


def case() -> Case:
    geometry = operands()[0]
    weights = math.prod(label_counts(GLOBAL, geometry)) * CONV.in_channels * CONV.out_channels
    entries = geometry.pixels * geometry.positions * CONV.in_channels * CONV.out_channels
    return Case(
        title=f"kernel as large as the image, 3 to 64 channels, 32 x 32, stride 2, batch {BATCH}",
        contenders={
            "conv2d with that kernel": convolution,
            "fast Fourier transform": transforms,
            OURS: ours,
            PRODUCTS: products,
        },
        flops=3 * 2 * BATCH * entries,
        bytes=4 * 3 * weights,
    )
