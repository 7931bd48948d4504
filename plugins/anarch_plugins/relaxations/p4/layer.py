"""Convolution over the group p4: translations and quarter turns of a square grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

TURNS = 4
"""Quarter turns until an image is itself again."""

Transform = Callable[[torch.Tensor], torch.Tensor]


class P4Conv2d(nn.Module):
    """A filter, applied in each of its four orientations.

    Features of the group are [batch, 4 · channels, height, width], the orientations of one channel next to one another. Output channel
    ``o`` in orientation ``r`` sees the input through the filter of ``o``, turned ``r`` times counterclockwise; where the input is one of
    features of the group, orientation ``s`` of it meets slice ``s - r`` of the filter. Turning the input turns the output and moves its
    orientations on by one (Cohen & Welling 2016, https://arxiv.org/abs/1602.07576); padding is of zeros, and with a stride that holds
    where the positions lie symmetrically in the image.

    Attributes:
        lifting: whether inputs are images, [batch, in_channels, height, width], not features of the group.
        weight: [out_channels, in_channels, k, k] if lifting, else [out_channels, in_channels, 4, k, k].
        bias: [out_channels], the same for all orientations, or None.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        lifting: bool = False,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.lifting, self.stride, self.padding = lifting, stride, padding
        orientations = () if lifting else (TURNS,)
        shape = (out_channels, in_channels, *orientations, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As a convolution of PyTorch with as many inputs is initialised."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Args:
            x: [batch, in_channels, height, width] if lifting, else [batch, 4 · in_channels, height, width].

        Returns:
            [batch, 4 · out_channels, height, width], the size as of a convolution.
        """
        bias = None if self.bias is None else self.bias.repeat_interleave(TURNS)
        return F.conv2d(x, oriented(self.weight), bias, self.stride, self.padding)

    def symmetries(self) -> Mapping[str, tuple[Transform, Transform]]:
        """What its input may undergo, by name, with what its output undergoes then."""
        return {"rotation": (turned if self.lifting else turned_features, turned_features)}

    def extra_repr(self) -> str:
        """The arguments, as convolutions show theirs."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return text + (", lifting=True" if self.lifting else "") + ("" if self.bias is not None else ", bias=False")


class P4Mean(nn.Module):
    """The mean over orientations and positions, [..., 4 · channels, height, width] → [..., channels]: turning changes nothing of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return torch.unflatten(x, -3, (-1, TURNS)).mean((-3, -2, -1))


def oriented(weight: torch.Tensor) -> torch.Tensor:
    """The filters of a layer in all orientations, as weight of an ordinary convolution.

    Args:
        weight: [out, in, k, k] or [out, in, 4, k, k].

    Returns:
        [4 · out, in, k, k] or [4 · out, 4 · in, k, k].
    """
    turns = [_moved_on(weight, turn) if weight.ndim == 5 else weight for turn in range(TURNS)]
    filters = torch.stack([filters.rot90(turn, (-2, -1)) for turn, filters in enumerate(turns)], dim=1).flatten(0, 1)
    return filters.flatten(1, 2) if weight.ndim == 5 else filters


def turned(x: torch.Tensor) -> torch.Tensor:
    """Images [..., height, width], turned counterclockwise by 90 degrees."""
    return x.rot90(1, (-2, -1))


def turned_features(x: torch.Tensor) -> torch.Tensor:
    """Features of the group [..., 4 · channels, height, width] of images that were turned likewise."""
    return _moved_on(torch.unflatten(turned(x), -3, (-1, TURNS)), 1).flatten(-4, -3)


def _moved_on(x: torch.Tensor, turns: int) -> torch.Tensor:
    return x.roll(turns, dims=-3)
