"""A convolution whose positions share weights only modulo a period."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import numpy as np
import torch
from torch.nn import functional

from anarch_core.lattice import NOTHING, AbstractFamily, Axis, ConvGeometry, Incidence, Index, label_counts
from anarch_core.layers import LatticeLayer, inverse_root, pad
from anarch_core.ops import Piece, is_channels_last, needs_ordinary_operations
from anarch_core.relaxation import AbstractLatticeRelaxation
from anarch_plugins.relaxations.tiled.interleaved import Interleaved, interleave


@attrs.frozen
class Tiled(AbstractFamily):
    """Local; on each axis the label of tap a at position i is (i mod period, a).

    Attributes:
        period: positions are told apart modulo this.
    """

    period: int
    name: str = "tiled"
    local: bool = True

    def residues(self, axis: Axis) -> int:
        """Classes of positions along an axis."""
        return min(self.period, axis.positions)

    def incidence(self, axis: Axis) -> Incidence:
        reads = axis.reads()
        position, tap = np.nonzero(reads != NOTHING)
        label = position % self.period * axis.kernel + tap
        return Incidence(position * axis.size + reads[position, tap], label, self.residues(axis) * axis.kernel, axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.arange(axis.positions) % self.period


class TiledLayer(LatticeLayer):
    """One convolution for each class of positions, their outputs interleaved.

    Attributes:
        weight: [*(classes * kernel) of each axis, out_channels, in_channels / groups].
        bias: [*classes of each axis, out_channels].
    """

    family: Tiled

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        groups, outputs, inputs = geometry.channel_block
        return *label_counts(family, geometry), groups * outputs, inputs

    @classmethod
    def bias_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return *(int(family.bias_labels(axis).max()) + 1 for axis in geometry.axes), geometry.out_channels

    @classmethod
    def flops(cls, family: AbstractFamily, geometry: ConvGeometry) -> int:
        return 2 * geometry.positions * math.prod(axis.kernel for axis in geometry.axes) * math.prod(geometry.channel_block)

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes of positions along each axis."""
        return tuple(self.family.residues(axis) for axis in self.geometry.axes)

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        groups, outputs, _ = self.geometry.channel_block
        return torch.unflatten(tensor, -2, (groups, outputs))

    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def weight_bound(self) -> torch.Tensor:
        taps = math.prod(axis.kernel for axis in self.geometry.axes)
        return inverse_root(taps * self.geometry.in_channels // self.geometry.groups)

    def bias_bound(self) -> torch.Tensor:
        return self.weight_bound()

    def piece(self) -> Piece | None:
        return self.by_position()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size], in the memory format of the input."""
        x, single = self.batched(x)
        laid_out = is_channels_last(x)
        axes, d = self.geometry.axes, len(self.geometry.axes)
        x = pad(x, self.geometry)
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[d - 1]
        taps: torch.Tensor = self.weight
        for dim, axis in enumerate(axes):
            taps = torch.unflatten(taps, 2 * dim, (-1, axis.kernel))
        taps = taps.permute(*range(0, 2 * d, 2), 2 * d, 2 * d + 1, *range(1, 2 * d, 2))  # [*classes, out_channels, inputs, *kernel]
        stride = [axis.stride * count for axis, count in zip(axes, self.classes, strict=True)]
        parts = []
        for where in itertools.product(*map(range, self.classes)):
            window: tuple[Any, ...] = (..., *(slice(offset * axis.stride, None) for offset, axis in zip(where, axes, strict=True)))
            part = convolve(
                x[window],
                taps[where],
                None if self.bias is None else self.bias[where],
                stride=stride,
                dilation=[axis.dilation for axis in axes],
                groups=self.geometry.groups,
            )
            # The last class may see one position more than the output has, where the stride leaves pixels unread.
            places = [len(range(first, axis.positions, count)) for first, axis, count in zip(where, axes, self.classes, strict=True)]
            seen: tuple[Any, ...] = (..., *map(slice, places))
            parts.append(part[seen])
        y: torch.Tensor
        if needs_ordinary_operations(x, self.weight):
            y = interleave(parts, self.geometry.output_size, self.classes)
        else:
            y = Interleaved.apply(self.geometry.output_size, self.classes, laid_out, *parts)
        return y.squeeze(0) if single else y


class TiledRelaxation(AbstractLatticeRelaxation):
    """conv, or tiled of a divisor of the period -> tiled."""

    layer_class = TiledLayer

    @property
    def family(self) -> AbstractFamily:
        return Tiled(period=self.options.period)
