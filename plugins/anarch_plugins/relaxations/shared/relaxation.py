"""A convolution whose kernel reaches every pixel from every position."""

from __future__ import annotations

import math

import torch

from anarch_core.lattice import AbstractFamily, ConvGeometry, label_counts
from anarch_core.layers import LatticeLayer, inverse_root
from anarch_core.ops import Piece, is_channels_last, needs_ordinary_operations
from anarch_core.relaxation import AbstractLatticeRelaxation
from anarch_plugins.relaxations.shared.family import GLOBAL
from anarch_plugins.relaxations.shared.fourier import correlate
from anarch_plugins.relaxations.shared.rows import product_by_rows, row_kernels

SLOWNESS = 16  # of an operation of a transform beside one of a dense product, measured on a CPU
LARGEST_SPREAD = 2**27  # numbers


class GlobalKernelLayer(LatticeLayer):
    """A convolution with a kernel as large as the image, by dense products or by fast Fourier transform.

    Attributes:
        weight: [out_channels, in_channels / groups, *displacements of each axis].
        bias: [out_channels].
        by_rows: whether by dense products.
    """

    def __init__(self, family: AbstractFamily, geometry: ConvGeometry, like: torch.Tensor) -> None:
        super().__init__(family, geometry, like)
        self.by_rows = by_rows(geometry)

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        groups, outputs, inputs = geometry.channel_block
        return groups * outputs, inputs, *label_counts(GLOBAL, geometry)

    @classmethod
    def bias_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return (geometry.out_channels,)

    @classmethod
    def flops(cls, family: AbstractFamily, geometry: ConvGeometry) -> int:
        if by_rows(geometry):
            return dense_flops(geometry)
        return transform_flops(geometry) + 4 * transform_points(geometry) * math.prod(geometry.channel_block)

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        groups, outputs, _ = self.geometry.channel_block
        d = len(self.geometry.axes)
        return torch.unflatten(tensor, 0, (groups, outputs)).permute(*range(3, 3 + d), 0, 1, 2)

    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(*[1] * len(self.geometry.axes), -1)

    def weight_bound(self) -> torch.Tensor:
        return inverse_root(self.geometry.pixels * self.geometry.in_channels // self.geometry.groups)

    def bias_bound(self) -> torch.Tensor:
        return self.weight_bound()

    def piece(self) -> Piece | None:
        return self.by_position()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size], in the memory format of the input."""
        x, single = self.batched(x)
        if needs_ordinary_operations(x, self.weight) or not len(x):  # of an empty batch there is no transform
            from anarch_plugins.relaxations.shared.traced import convolve

            y = convolve(x, self.weight, self.geometry)
        elif self.by_rows:
            y = product_by_rows(x, self.weight, GLOBAL, self.geometry)
            y = y if is_channels_last(x) else y.contiguous()
        else:
            y = correlate(x, self.weight, GLOBAL, self.geometry)
            if torch.is_autocast_enabled(x.device.type) and y.dtype != torch.float64:
                y = y.to(torch.get_autocast_dtype(x.device.type))
        if self.bias is not None:
            bias = self.bias.view(-1, *[1] * len(self.geometry.axes))
            y = y + (bias if bias.dtype == y.dtype else bias.to(y.dtype))
        return y.squeeze(0) if single else y


def by_rows(geometry: ConvGeometry) -> bool:
    """Whether dense products cost less than transforms.

    Per sample the former grow with the square of the pixels and the latter hardly faster than the pixels, but an operation of a
    transform takes many times longer.
    """
    if geometry.groups > 1:
        return False
    return (
        dense_flops(geometry) < SLOWNESS * transform_flops(geometry)
        and math.prod(row_kernels(GLOBAL, geometry).weight_shape) < LARGEST_SPREAD
    )


def dense_flops(geometry: ConvGeometry) -> int:
    """Operations of the dense product of one sample."""
    return 2 * geometry.pixels * geometry.positions * geometry.in_channels * geometry.out_channels


def transform_points(geometry: ConvGeometry) -> int:
    """Points of the transform of one channel."""
    return math.prod(2 * labels for labels in label_counts(GLOBAL, geometry))


def transform_flops(geometry: ConvGeometry) -> int:
    """Operations of the transforms of one sample."""
    points = transform_points(geometry)
    return round(2.5 * points * math.log2(max(points, 2)) * (geometry.in_channels + geometry.out_channels))


class SharedRelaxation(AbstractLatticeRelaxation):
    """conv -> shared."""

    layer_class = GlobalKernelLayer

    @property
    def family(self) -> AbstractFamily:
        return GLOBAL
