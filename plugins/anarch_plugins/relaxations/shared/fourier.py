"""A kernel as large as the image, applied by fast Fourier transform, where images are large."""

from __future__ import annotations

import functools

import torch

from anarch_core.lattice import NOTHING, Axis, ConvGeometry
from anarch_plugins.relaxations.shared.family import GlobalKernel


def correlate(x: torch.Tensor, weight: torch.Tensor, family: GlobalKernel, geometry: ConvGeometry) -> torch.Tensor:
    """The outputs of a layer without its bias; transforms run in at least float32.

    Args:
        x: [batch, in_channels, *input size].
        weight: [out_channels, in_channels / groups, *displacements of each axis].
        family: which displacements there are.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size], of the type of x.
    """
    dtype, exact = x.dtype, torch.promote_types(x.dtype, torch.float32)
    groups, outputs, inputs = geometry.channel_block
    dims = tuple(range(-len(geometry.axes), 0))
    with torch.autocast(x.device.type, enabled=False):
        window, lengths = _window(x.to(exact), family, geometry)
        signal = torch.unflatten(torch.fft.rfftn(window, lengths, dim=dims), 1, (groups, inputs))
        kernel = torch.unflatten(torch.fft.rfftn(weight.to(exact), lengths, dim=dims), 0, (groups, outputs))
        product = _frequencywise(signal, kernel.conj())
        y: torch.Tensor = torch.fft.irfftn(product.flatten(1, 2), lengths, dim=dims)
    for dim, (axis, length) in enumerate(zip(geometry.axes, lengths, strict=True)):
        # A circular axis may be gone round more than once.
        anchors = torch.arange(axis.positions, device=y.device) * axis.stride % length
        y = y.index_select(2 + dim, anchors)
    return y.to(dtype)


def _window(x: torch.Tensor, family: GlobalKernel, geometry: ConvGeometry) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The input as the kernel's first entry sees it from the first position, and the lengths of the transforms."""
    lengths = []
    for dim, axis in enumerate(geometry.axes):
        if axis.mode == "circular":
            lengths.append(axis.size)
            continue
        pixel, outside = _reads(family, axis, x.device)
        x = x.index_select(2 + dim, pixel)
        if axis.mode == "zeros":
            x = x.masked_fill(outside.view(-1, *[1] * (len(geometry.axes) - dim - 1)), 0)
        lengths.append(_smooth(len(pixel)))
    return x, tuple(lengths)


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # they are used again outside of the first call
def _reads(family: GlobalKernel, axis: Axis, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixel under every virtual coordinate that the kernel comes across, and where there is none."""
    pixel = torch.from_numpy(family.crossed(axis))
    return pixel.clamp(min=0).to(device), (pixel == NOTHING).to(device)


def _frequencywise(signal: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Matrix product over input channels at every frequency: [b, g, i, *f] by [g, o, i, *f] to [b, g, o, *f]."""
    shape = signal.shape[3:]
    left = signal.flatten(3).permute(1, 3, 0, 2)
    right = kernel.flatten(3).permute(0, 3, 2, 1)
    return torch.unflatten((left @ right).permute(2, 0, 3, 1), -1, shape)


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
