"""Relaxed layers that know which convolution they stand for, and at which input size."""

from __future__ import annotations

import torch

from anarch_core.lattice.geometry import ConvGeometry, PaddingMode
from anarch_core.layers.base import RelaxedLayer


class PlacedLayer(RelaxedLayer):
    """A relaxed layer in the place of one convolution at a fixed input size.

    Code that asks a convolution for its settings gets the same answers from the layer: ``in_channels``, ``kernel_size`` and the others
    below are read off the geometry and cannot be set.

    Attributes:
        geometry: of the convolution it stands for.
        transposed: False.
    """

    geometry: ConvGeometry
    transposed = False

    def __init__(self, geometry: ConvGeometry) -> None:
        super().__init__()
        self.geometry = geometry
        self._input_shape = (geometry.in_channels, *geometry.input_size)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.geometry.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.geometry.out_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return tuple(axis.kernel for axis in self.geometry.axes)

    @property
    def stride(self) -> tuple[int, ...]:
        """Pixels from one position to the next along each axis."""
        return tuple(axis.stride for axis in self.geometry.axes)

    @property
    def padding(self) -> tuple[int, ...] | str:
        """As the convolution was given it."""
        return self.geometry.padding

    @property
    def dilation(self) -> tuple[int, ...]:
        """Pixels from one tap to the next along each axis."""
        return tuple(axis.dilation for axis in self.geometry.axes)

    @property
    def groups(self) -> int:
        """Blocks of channels that the convolution keeps apart."""
        return self.geometry.groups

    @property
    def padding_mode(self) -> PaddingMode:
        """What is padded."""
        return self.geometry.axes[0].mode

    @property
    def output_padding(self) -> tuple[int, ...]:
        """Zeros: the convolution is not a transposed one."""
        return (0,) * len(self.geometry.axes)

    def batched(self, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """The input with a batch dimension, and whether it had none.

        Args:
            x: [batch, in_channels, *input size] or [in_channels, *input size].

        Raises:
            ValueError: the input is not of the size the layer was made for.
        """
        if x.shape[1:] == self._input_shape:
            return x, False
        if x.shape == self._input_shape:
            return x.unsqueeze(0), True
        msg = (
            f"this {self.relaxation} layer was made for inputs of shape {list(self._input_shape)}, got {list(x.shape)}; "
            "relax the network again at that size"
        )
        raise ValueError(msg)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        g = self.geometry
        return f"{g.in_channels}x{list(g.input_size)} -> {g.out_channels}x{list(g.output_size)}, groups={g.groups}, bias={g.bias}"
