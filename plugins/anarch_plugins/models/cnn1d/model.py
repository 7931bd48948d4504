"""The network ``cnn1d``."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import flattened_size
from anarch_plugins.models.cnn1d.options import Cnn1dOptions


def build(input_shape: tuple[int, ...], classes: int, options: Cnn1dOptions) -> nn.Sequential:
    """Three strided convolutions and a linear head, as in the MNIST-1D paper.

    Args:
        input_shape: [channels, length].
        classes: number of outputs.
        options: width.

    Raises:
        ConfigError: the inputs are not one-dimensional.
    """
    if len(input_shape) != 2:
        msg = f"cnn1d takes signals [channels, length], not inputs of shape {input_shape}; for images use vanilla-cnn or resnet20"
        raise ConfigError(msg)
    channels = options.channels
    features = nn.Sequential(
        nn.Conv1d(input_shape[0], channels, kernel_size=5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(channels, channels, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(channels, channels, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flattened_size(features, input_shape), classes))
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
