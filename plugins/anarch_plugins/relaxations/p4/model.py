"""The network ``p4-cnn``."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from anarch_core.errors import ConfigError
from anarch_plugins.relaxations.p4.layer import P4Conv2d, P4Mean
from anarch_plugins.relaxations.p4.options import P4CnnOptions


def build(input_shape: tuple[int, ...], classes: int, options: P4CnnOptions) -> nn.Sequential:
    """Three p4 convolutions of 3 x 3 taps, each followed by pooling, and a linear head on the mean over orientations and positions.

    Its outputs stay as they are when the input is turned by 90 degrees.

    Args:
        input_shape: [channels, side, side].
        classes: number of outputs.
        options: width.

    Raises:
        ConfigError: the inputs are not square images.
    """
    if len(input_shape) != 3 or input_shape[1] != input_shape[2]:
        msg = f"p4-cnn takes square images [channels, side, side], not inputs of shape {input_shape}; use cnn1d or separable for others"
        raise ConfigError(msg)
    channels, side = options.channels, input_shape[1]
    layers: list[nn.Module] = []
    for inputs, lifting in [(input_shape[0], True), (channels, False), (channels, False)]:
        layers += [P4Conv2d(inputs, channels, 3, lifting=lifting, padding=1), nn.ReLU(), _pool(side)]
        side = (side + 1) // 2
    classifier = nn.Sequential(P4Mean(), nn.Linear(channels, classes))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), classifier=classifier))


def _pool(side: int) -> nn.MaxPool2d:
    """Halves the side; its windows lie symmetrically in the image."""
    return nn.MaxPool2d(2) if side % 2 == 0 else nn.MaxPool2d(3, stride=2, padding=1)
