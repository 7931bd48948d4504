"""Patches as tokens, what every token passes by itself, and the offsets between tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anarch_core.errors import ConfigError

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}


class Patches(nn.Module):
    """Signals [n, channels, length] or images [n, channels, height, width] to one token per patch, [n, tokens, width].

    Attributes:
        grid: patches per side; tokens are numbered in the order of rows.
        proj: the strided convolution that makes a token of a patch.
    """

    def __init__(self, input_shape: tuple[int, ...], patch: int, width: int) -> None:
        super().__init__()
        channels, *sides = input_shape
        self.grid = tuple(side // patch for side in sides)
        self.proj = _CONVOLUTIONS[len(sides)](channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Patches in the order of rows, [n, tokens, width]."""
        maps: torch.Tensor = self.proj(x)
        return maps.flatten(2).transpose(1, 2)


def require_patches(model: str, input_shape: tuple[int, ...], patch: int) -> None:
    """Refuse inputs that are not cut into patches without a rest.

    Raises:
        ConfigError: they are neither signals nor images, or ``patch`` does not divide a side.
    """
    _, *sides = input_shape
    if len(sides) not in _CONVOLUTIONS:
        msg = f"{model} takes signals [channels, length] and images [channels, height, width], not inputs of shape {input_shape}"
        raise ConfigError(msg)
    if any(side % patch for side in sides):
        common = int(np.gcd.reduce(sides))
        divisors = ", ".join(str(size) for size in range(1, min(common, 32) + 1) if common % size == 0)
        msg = f"patches of side {patch} do not fill inputs of shape {input_shape}; sides that do: {divisors} (option 'patch' of {model})"
        raise ConfigError(msg)


class ChannelMlp(nn.Sequential):
    """Linear, GELU, linear: four times as wide within, the same for every token."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class TokenMean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] to [n, width]."""
        return x.mean(dim=1)


def offset_index(grid: Sequence[int], *, circulant: bool = False) -> tuple[npt.NDArray[np.int64], int]:
    """A number for the offset between any two tokens: the index of a table of relative positions.

    On one axis it labels the diagonals of a Toeplitz matrix; on two, block Toeplitz with Toeplitz blocks.

    Args:
        grid: tokens per side, in the order of rows.
        circulant: offsets count modulo the side, as on a circle or torus.

    Returns:
        [tokens, tokens], entry i, j for the offset i - j, and how many different numbers there are: the product over the sides of
        2 * side - 1, or of side if circulant.
    """
    places = np.indices(grid).reshape(len(grid), -1)
    index, labels = np.zeros((places.shape[1],) * 2, dtype=np.int64), 1
    for side, place in zip(grid, places, strict=True):
        offset = place[:, None] - place[None, :]
        sizes = side if circulant else 2 * side - 1
        index = index * sizes + (offset % side if circulant else offset + side - 1)
        labels *= sizes
    return index, labels
