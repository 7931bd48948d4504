"""A convolution whose kernel reaches every pixel from every position."""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch

from anarch_core.geometry import NOTHING, Axis, ConvGeometry, Index
from anarch_core.lattice import AbstractFamily, Incidence, label_counts
from anarch_core.lattice_layer import LatticeLayer, inverse_root
from anarch_core.lattice_relaxation import AbstractLatticeRelaxation


@attrs.frozen
class GlobalKernel(AbstractFamily):
    """Shared, not local; on each axis the label is the displacement from the position's anchor to the pixel.

    On a circular axis displacements are counted modulo its size. Where padding reflects or replicates, pixels are reached through
    the padding
    too, as by a convolution with a kernel of that size.
    """

    name: str = "shared"
    local: bool = False

    def window(self, axis: Axis) -> tuple[int, int]:
        """Lowest displacement along an axis and how many there are."""
        if axis.mode == "circular":
            return 0, axis.size
        low, high = -axis.stride * (axis.positions - 1), axis.size - 1
        if axis.mode != "zeros":
            low, high = min(low, -axis.before), max(high, axis.dilation * (axis.kernel - 1) - axis.before)
        return low, high - low + 1

    def incidence(self, axis: Axis) -> Incidence:
        low, labels = self.window(axis)
        anchor = np.arange(axis.positions)[:, None] * axis.stride
        pixel = axis.fold(anchor + low + np.arange(labels)[None, :])
        position, label = np.nonzero(pixel != NOTHING)
        return Incidence(position * axis.size + pixel[position, label], label, labels, axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.zeros(axis.positions, dtype=np.int64)


GLOBAL = GlobalKernel()


class GlobalKernelLayer(LatticeLayer):
    """A convolution with a kernel as large as the image, by fast Fourier transform.

    Attributes:
        weight: [out_channels, in_channels / groups, *displacements of each axis].
        bias: [out_channels].
    """

    def weight_shape(self) -> tuple[int, ...]:
        groups, outputs, inputs = self.geometry.channel_block
        return groups * outputs, inputs, *label_counts(GLOBAL, self.geometry)

    def bias_shape(self) -> tuple[int, ...]:
        return (self.geometry.out_channels,)

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        groups, outputs, _ = self.geometry.channel_block
        d = len(self.geometry.axes)
        return tensor.unflatten(0, (groups, outputs)).permute(*range(3, 3 + d), 0, 1, 2)

    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(*[1] * len(self.geometry.axes), -1)

    def weight_bound(self) -> torch.Tensor:
        return inverse_root(self.geometry.pixels * self.geometry.in_channels // self.geometry.groups)

    def bias_bound(self) -> torch.Tensor:
        return self.weight_bound()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size]; transforms run in at least float32."""
        x, single = self.batched(x)
        dtype, exact = x.dtype, torch.promote_types(x.dtype, torch.float32)
        groups, outputs, inputs = self.geometry.channel_block
        dims = tuple(range(-len(self.geometry.axes), 0))
        with torch.autocast(x.device.type, enabled=False):
            x, lengths = self._window(x.to(exact))
            signal = torch.fft.rfftn(x, lengths, dim=dims).unflatten(1, (groups, inputs))
            kernel = torch.fft.rfftn(self.weight.to(exact), lengths, dim=dims).unflatten(0, (groups, outputs))
            product = _frequencywise(signal, kernel.conj())
            y = torch.fft.irfftn(product.flatten(1, 2), lengths, dim=dims)
        for dim, (axis, length) in enumerate(zip(self.geometry.axes, lengths, strict=True)):
            # A circular axis may be gone round more than once.
            anchors = torch.arange(axis.positions, device=y.device) * axis.stride % length
            y = y.index_select(2 + dim, anchors)
        y = y.to(dtype)
        if self.bias is not None:
            y = y + self.bias.view(-1, *[1] * len(dims)).to(dtype)
        return y.squeeze(0) if single else y

    def _window(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The input as the kernel's first entry sees it from the first position, and the lengths of the transforms."""
        lengths = []
        for dim, axis in enumerate(self.geometry.axes):
            low, labels = GLOBAL.window(axis)
            if axis.mode == "circular":
                lengths.append(axis.size)
                continue
            reach = axis.stride * (axis.positions - 1)
            pixel = torch.from_numpy(axis.fold(low + np.arange(reach + labels))).to(x.device)
            gathered = x.index_select(2 + dim, pixel.clamp(min=0))
            mask = (pixel != NOTHING).view(-1, *[1] * (len(self.geometry.axes) - dim - 1))
            x = gathered * mask
            lengths.append(_smooth(len(pixel)))
        return x, tuple(lengths)


def _frequencywise(signal: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Matrix product over input channels at every frequency: [b, g, i, *f] by [g, o, i, *f] to [b, g, o, *f]."""
    shape = signal.shape[3:]
    left = signal.flatten(3).permute(1, 3, 0, 2)
    right = kernel.flatten(3).permute(0, 3, 2, 1)
    return (left @ right).permute(2, 0, 3, 1).unflatten(-1, shape)


def _smooth(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5: transforms of other lengths are several times slower."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


class SharedRelaxation(AbstractLatticeRelaxation):
    """conv -> shared."""

    layer_class = GlobalKernelLayer

    @property
    def family(self) -> AbstractFamily:
        return GLOBAL

    def weights(self, geometry: ConvGeometry) -> int:
        return math.prod(label_counts(GLOBAL, geometry)) * math.prod(geometry.channel_block)

    def biases(self, geometry: ConvGeometry) -> int:
        return geometry.out_channels

    def flops(self, geometry: ConvGeometry) -> int:
        points = math.prod(2 * labels for labels in label_counts(GLOBAL, geometry))
        transforms = geometry.in_channels + geometry.out_channels
        return round(2.5 * points * math.log2(max(points, 2)) * transforms) + 4 * points * math.prod(geometry.channel_block)
