"""The models ``monarch-mlp`` and ``hashed-mlp``."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

from anarch_core.errors import ConfigError
from anarch_monarch.layers import HashedLinear, MonarchLinear
from anarch_monarch.options import HashedMlpOptions, MonarchMlpOptions


def monarch(input_shape: tuple[int, ...], classes: int, options: MonarchMlpOptions) -> nn.Module:
    """A dense layer onto ``width`` units, Monarch layers, and a dense classifier.

    Raises:
        ConfigError: the blocks do not divide the width.
    """
    if options.width % options.blocks:
        msg = f"a monarch-mlp of width {options.width} cannot have {options.blocks} blocks; the width must be a multiple of the blocks"
        raise ConfigError(msg)
    width = options.width
    return _perceptron(input_shape, width, classes, (MonarchLinear(width, width, options.blocks) for _ in range(options.depth)))


def hashed(input_shape: tuple[int, ...], classes: int, options: HashedMlpOptions) -> nn.Module:
    """A dense layer onto ``width`` units, hashed layers, and a dense classifier."""
    width = options.width
    layers = (HashedLinear(width, width, options.codes, options.seed + depth) for depth in range(options.depth))
    return _perceptron(input_shape, width, classes, layers)


def _perceptron(input_shape: tuple[int, ...], width: int, classes: int, layers: Iterable[nn.Module]) -> nn.Module:
    hidden = [module for layer in layers for module in (layer, nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), *hidden, nn.Linear(width, classes))
