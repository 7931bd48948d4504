"""Mean and deviation of channels, and inputs normalised by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch


def channel_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel over samples and positions.

    Summed in float64, where sums over 8-bit images are exact, so the result does not depend on the number of threads.

    Args:
        x: [n, channels, *spatial], any numeric type.

    Returns:
        mean and standard deviation, float64, [channels]; the deviation of a constant channel is given as 1.
    """
    return statistics_of(chunks(x))


def statistics_of(pieces: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`channel_statistics`, of inputs that come in pieces."""
    total = squares = torch.zeros((), dtype=torch.float64)
    count = 0
    for piece in pieces:
        sums, sums_of_squares = _sums(piece)
        total, squares = total + sums, squares + sums_of_squares
        count += piece.numel() // piece.shape[1]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean, torch.where(deviation > 0, deviation, 1.0)


def _sums(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the numbers of each channel, and of their squares, float64 [channels]."""
    channels = x.transpose(0, 1).flatten(1)
    if x.dtype != torch.uint8:
        values = channels.double()
        return values.sum(1), values.square().sum(1)
    # To count bytes is twenty times as fast, and as exact.
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).double()
    byte = torch.arange(256, dtype=torch.float64)
    return counts @ byte, counts @ byte.square()


def normalised(x: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """``(x - mean) / deviation`` per channel, as float32.

    Args:
        x: [n, channels, *spatial], any numeric type.
        mean: [channels].
        deviation: [channels].
    """
    result = torch.empty(x.shape, dtype=torch.float32)
    for source, target in zip(chunks(x), chunks(result), strict=True):
        target.copy_(scaled(source, mean, deviation))
    return result


def scaled(x: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """As :func:`normalised`, of few samples, on their device."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, deviation = (each.float().to(x.device).view(shape) for each in (mean, deviation))
    return x.to(torch.float32, copy=True).sub_(mean).div_(deviation)


class _Sliceable(Protocol):
    """A tensor, or what gives one for a slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> torch.Tensor: ...


def chunks(x: _Sliceable) -> Iterator[torch.Tensor]:
    """Views of so few samples at once that arithmetic on them needs no second copy of the set."""
    return (x[start : start + 1024] for start in range(0, len(x), 1024))
