"""Channels last: the memory format in which a CPU convolves, pools and multiplies position by position fastest.

Layers that return it do so as PyTorch's own: given channels last they return channels last, given anything else what PyTorch calls
contiguous, so that a network that takes a ``view`` of its activations goes on working.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from anarch_core.network import in_evaluation_mode


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether every pixel's channels lie together in [batch, channels, *pixels], pixel after pixel.

    False while a graph is traced: where its tensors lie is the compiler's affair.
    """
    return not torch.compiler.is_compiling() and x.stride(1) == 1 and x.stride(-1) == x.shape[1] and x.movedim(1, -1).is_contiguous()


def empty_channels_last(like: torch.Tensor, channels: int, pixels: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised [batch, channels, *pixels]; not a view, so that those who get it may change it in place."""
    strides = [math.prod(pixels[k + 1 :]) * channels for k in range(len(pixels))]
    return torch.empty_strided((len(like), channels, *pixels), (math.prod(pixels) * channels, 1, *strides), dtype=dtype, device=like.device)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same [batch, channels, *pixels], channels last in memory."""
    return x if is_channels_last(x) else empty_channels_last(x, x.shape[1], tuple(x.shape[2:]), x.dtype).copy_(x)


@torch.no_grad()
def takes_channels_last(model: nn.Module, x: torch.Tensor) -> bool:
    """Whether to give a network channels-last inputs: images on a CPU, if it accepts them; one-dimensional convolutions are slower so.

    Not every network does: a ``view`` across the channels and pixels of such a tensor is an error.

    Args:
        model: the network, looked at in evaluation mode; every module's mode is put back.
        x: inputs [n, channels, *pixels].
    """
    if x.device.type != "cpu" or x.ndim != 4:
        return False
    try:
        with in_evaluation_mode(model):
            model(channels_last(x[:2]))
    except RuntimeError:
        return False
    return True
