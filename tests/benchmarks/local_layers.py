"""Locally connected layers as others write them, each made from a convolution whose weights it starts with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from anarch_core.lattice.geometry import ConvGeometry


def position_bias(conv: nn.Conv2d, geometry: ConvGeometry) -> nn.Parameter | None:
    """One number per channel and position, [out_channels, height, width]."""
    return None if conv.bias is None else nn.Parameter(conv.bias.detach()[:, None, None].repeat(1, *geometry.output_size))


def with_bias(y: torch.Tensor, bias: nn.Parameter | None) -> torch.Tensor:
    return y if bias is None else y + bias


class Unfolded(nn.Module):
    """``unfold``, then one product over the patches; the weights include those that meet padding."""

    def __init__(self, conv: nn.Conv2d, side: int, form: Literal["einsum", "bmm"] = "bmm") -> None:
        super().__init__()
        self.geometry = ConvGeometry.of(conv, (side, side))
        self.conv_arguments = {"kernel_size": conv.kernel_size, "padding": conv.padding, "stride": conv.stride}
        self.form = form
        self.weight = nn.Parameter(conv.weight.detach().flatten(1).t().repeat(self.geometry.positions, 1, 1))  # [positions, taps, outputs]
        self.bias = position_bias(conv, self.geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(x, **self.conv_arguments)
        if self.form == "einsum":
            y = torch.einsum("bkp,pko->bop", patches, self.weight)
        else:
            y = torch.bmm(patches.permute(2, 0, 1), self.weight).permute(1, 2, 0)
        return with_bias(y.unflatten(2, self.geometry.output_size), self.bias)


class UnfoldedGroups(nn.Module):
    """``unfold``, then one product over the patches of every group; the weights include those that meet padding."""

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        self.geometry = ConvGeometry.of(conv, (side, side))
        self.conv_arguments = {"kernel_size": conv.kernel_size, "padding": conv.padding, "stride": conv.stride}
        taps = conv.weight.detach().flatten(1).unflatten(0, (conv.groups, -1)).transpose(1, 2)  # [groups, taps, outputs]
        self.weight = nn.Parameter(taps.repeat(self.geometry.positions, 1, 1, 1))
        self.bias = position_bias(conv, self.geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(x, **self.conv_arguments).unflatten(1, (self.geometry.groups, -1))
        y = torch.einsum("bgkp,pgko->bgop", patches, self.weight).flatten(1, 2)
        return with_bias(y.unflatten(2, self.geometry.output_size), self.bias)


class Broadcast(nn.Module):
    """As in the textbooks: patches times weights elementwise, then a sum."""

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        self.geometry = ConvGeometry.of(conv, (side, side))
        self.kernel, self.stride, self.before = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        self.weight = nn.Parameter(conv.weight.detach()[:, :, None, None].repeat(1, 1, *self.geometry.output_size, 1, 1))
        self.bias = position_bias(conv, self.geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (self.before,) * 4)
        patches = padded.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        return with_bias((patches.unsqueeze(1) * self.weight).sum((2, 5, 6)), self.bias)


class KerasSlices(nn.Module):
    """``LocallyConnected2D`` of Keras 2, implementation 1 (its default): a slice per position, concatenated, and one batched product.

    Activations are channels-last, as in Keras. It knows no padding, so the input is padded before.
    """

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        self.geometry = ConvGeometry.of(conv, (side, side))
        self.kernel, self.stride, self.before = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        taps = conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)  # [height * width * inputs, outputs]
        self.weight = nn.Parameter(taps.repeat(self.geometry.positions, 1, 1))
        self.bias = position_bias(conv, self.geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, *(self.before,) * 4))
        slices = []
        for i in range(self.geometry.output_size[0]):
            for j in range(self.geometry.output_size[1]):
                top, left = i * self.stride, j * self.stride
                slices.append(padded[:, top : top + self.kernel, left : left + self.kernel].reshape(1, len(x), -1))
        y = torch.bmm(torch.cat(slices), self.weight).unflatten(0, self.geometry.output_size)  # [*positions, batch, outputs]
        return with_bias(y.permute(2, 0, 1, 3).contiguous().permute(0, 3, 1, 2), self.bias)


class KerasMasked(nn.Module):
    """``LocallyConnected2D`` of Keras 2, implementation 2: a dense kernel times its mask, and one product.

    The kernel has no rows for padded pixels, which Keras can do where the padding keeps the size.
    """

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        self.geometry = ConvGeometry.of(conv, (side, side))
        inputs, outputs = (side, side, conv.in_channels), (*self.geometry.output_size, conv.out_channels)
        kernel, mask = torch.randn(*inputs, *outputs), torch.zeros(side, side, 1, *self.geometry.output_size, 1)
        vertical, horizontal = (axis.reads() for axis in self.geometry.axes)
        for i, rows in enumerate(vertical):
            for j, columns in enumerate(horizontal):
                for a, row in enumerate(rows):
                    for b, column in enumerate(columns):
                        if min(row, column) >= 0:
                            kernel[row, column, :, i, j] = conv.weight.detach()[:, :, a, b].t()
                            mask[row, column, :, i, j] = 1
        self.weight = nn.Parameter(kernel)
        self.register_buffer("mask", mask)
        self.bias = position_bias(conv, self.geometry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.permute(0, 2, 3, 1).flatten(1) @ (self.mask * self.weight).flatten(3).flatten(0, 2)
        return with_bias(y.unflatten(1, (*self.geometry.output_size, -1)).permute(0, 3, 1, 2), self.bias)
