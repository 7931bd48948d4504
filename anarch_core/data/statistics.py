"""Mean and deviation of channels, and inputs normalised by them."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def channel_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel over samples and positions.

    Summed in float64, where sums over 8-bit images are exact, so the result does not depend on the number of threads.

    Args:
        x: [n, channels, *spatial], any numeric type.

    Returns:
        mean and standard deviation, float64, [channels]; the deviation of a constant channel is given as 1.
    """
    channels = x.shape[1]
    total, squares = torch.zeros(2, channels, dtype=torch.float64).unbind()
    for chunk in chunks(x):
        values = chunk.double().transpose(0, 1).reshape(channels, -1)
        total += values.sum(1)
        squares += values.square().sum(1)
    count = x.numel() // channels
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean, torch.where(deviation > 0, deviation, 1.0)


def normalised(x: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """``(x - mean) / deviation`` per channel, as float32.

    Args:
        x: [n, channels, *spatial], any numeric type.
        mean: [channels].
        deviation: [channels].
    """
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, deviation = mean.float().view(shape), deviation.float().view(shape)
    result = torch.empty(x.shape, dtype=torch.float32)
    for source, target in zip(chunks(x), chunks(result), strict=True):
        target.copy_(source).sub_(mean).div_(deviation)
    return result


def chunks(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views of so few samples at once that arithmetic on them needs no second copy of the set."""
    return (x[start : start + 1024] for start in range(0, len(x), 1024))
