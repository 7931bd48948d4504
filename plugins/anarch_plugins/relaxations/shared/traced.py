"""A kernel as large as the image, applied as one convolution: for graphs.

It multiplies mostly padded zeros, but it is an operation that every compiler and every runtime knows. Imported where it is needed, since it
loads PyTorch's compiler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from anarch_core.lattice import Axis, ConvGeometry
from anarch_plugins.relaxations.shared.family import GLOBAL


def convolve(x: torch.Tensor, weight: torch.Tensor, geometry: ConvGeometry) -> torch.Tensor:
    """The outputs of a layer without its bias.

    Args:
        x: [batch, in_channels, *input size].
        weight: [out_channels, in_channels / groups, *displacements of each axis].
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size].
    """
    d = len(geometry.axes)
    for dim, axis in enumerate(geometry.axes):
        if axis.mode == "zeros":
            reach = axis.stride * (axis.positions - 1)
            x = functional.pad(x, [0, 0] * (d - 1 - dim) + [reach, reach])
        else:
            pixels = _pixels(axis.size, axis.kernel, axis.stride, axis.dilation, axis.before, axis.after, axis.mode)
            x = x.index_select(2 + dim, torch.tensor(pixels, device=x.device))
    convolved = (functional.conv1d, functional.conv2d, functional.conv3d)[d - 1]
    y: torch.Tensor = convolved(x, weight, stride=[axis.stride for axis in geometry.axes], groups=geometry.groups)
    return y


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _pixels(*numbers: Any) -> list[int]:
    """The pixel under every place that the kernel comes across along the axis of these numbers."""
    pixels: list[int] = GLOBAL.crossed(Axis(*numbers)).tolist()
    return pixels
