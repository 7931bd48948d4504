"""The index map of a convolution: which input pixel each tap of each output position reads.

Every relaxation is derived from this one map. A convolution in d dimensions is a product of d axes, so the map is kept per axis: tap
``a`` at position ``i`` of an axis reads the virtual coordinate ``i * stride + a * dilation - before``, which the padding mode folds back
onto a pixel, or onto nothing where zeros are padded. No weight ever meets a padded zero.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import attrs
import numpy as np
import torch
from torch import nn

from anarch_core.constraint.incidence import NOTHING, Index

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Any convolution of PyTorch."""


@attrs.frozen
class Axis:
    """One spatial axis of a convolution.

    Attributes:
        size: pixels of the input.
        kernel: taps.
        stride: pixels from one position to the next.
        dilation: pixels from one tap to the next.
        before: padding at the low end.
        after: padding at the high end.
        mode: what is padded.
    """

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    mode: PaddingMode = "zeros"

    @property
    def positions(self) -> int:
        """Output positions."""
        return (self.size + self.before + self.after - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def fold(self, coordinate: Index) -> Index:
        """Pixel under each virtual coordinate; ``NOTHING`` (-1) outside an axis that is padded with zeros."""
        last = self.size - 1
        if self.mode == "zeros":
            return np.where((coordinate >= 0) & (coordinate <= last), coordinate, NOTHING)
        if self.mode == "circular":
            return coordinate % self.size
        if self.mode == "replicate":
            return np.clip(coordinate, 0, last)
        phase = coordinate % max(2 * last, 1)
        return np.minimum(phase, 2 * last - phase) if last else np.zeros_like(coordinate)

    def reads(self) -> Index:
        """Pixel that each tap reads, [positions, kernel]."""
        position = np.arange(self.positions)[:, None] * self.stride
        tap = np.arange(self.kernel)[None, :] * self.dilation
        return self.fold(position + tap - self.before)


@attrs.frozen
class ConvGeometry:
    """A convolution at a fixed input size, in 1, 2 or 3 dimensions.

    Attributes:
        axes: one per spatial dimension.
        in_channels: channels of the input.
        out_channels: channels of the output.
        groups: blocks of channels that do not see each other.
        bias: whether there is one.
        padding: as the convolution was given it: numbers per axis, or a word; the axes hold what it comes to.
    """

    axes: tuple[Axis, ...]
    in_channels: int
    out_channels: int
    groups: int = 1
    bias: bool = True
    padding: tuple[int, ...] | str = "valid"

    @classmethod
    def of(cls, conv: Convolution, input_size: tuple[int, ...]) -> ConvGeometry:
        """Read the geometry off a convolution.

        Args:
            conv: ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``; ``padding`` may be a string.
            input_size: spatial size of its input.
        """
        axes = []
        for axis, size in enumerate(input_size):
            kernel, stride, dilation = conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]
            if conv.padding == "same":  # where the total is odd the extra pixel goes to the high end
                total = dilation * (kernel - 1)
                before, after = total // 2, total - total // 2
            elif conv.padding == "valid":
                before = after = 0
            else:
                before = after = cast(int, conv.padding[axis])
            axes.append(Axis(size, kernel, stride, dilation, before, after, conv.padding_mode))
        padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
        return cls(tuple(axes), conv.in_channels, conv.out_channels, conv.groups, conv.bias is not None, padding)

    def convolution(self, like: torch.Tensor) -> Convolution:
        """A convolution of this geometry with uninitialised weights of the dtype and device of ``like``."""
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(self.axes)]
        conv = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            kind,
            self.in_channels,
            self.out_channels,
            kernel_size=tuple(axis.kernel for axis in self.axes),
            stride=tuple(axis.stride for axis in self.axes),
            dilation=tuple(axis.dilation for axis in self.axes),
            padding=self.padding,
            padding_mode=self.axes[0].mode,
            groups=self.groups,
            bias=self.bias,
            device=like.device,
            dtype=like.dtype,
        )
        return cast(Convolution, conv)

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return tuple(axis.size for axis in self.axes)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return tuple(axis.positions for axis in self.axes)

    @property
    def pixels(self) -> int:
        """Pixels of one input channel."""
        return math.prod(self.input_size)

    @property
    def positions(self) -> int:
        """Positions of one output channel."""
        return math.prod(self.output_size)

    @property
    def channel_block(self) -> tuple[int, int, int]:
        """(groups, output channels of one group, input channels of one group)."""
        return self.groups, self.out_channels // self.groups, self.in_channels // self.groups
