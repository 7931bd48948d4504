"""The network ``vanilla-cnn``."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import flattened_size
from anarch_plugins.models.vanilla_cnn.options import VanillaCnnOptions


def build(input_shape: tuple[int, ...], classes: int, options: VanillaCnnOptions) -> nn.Sequential:
    """The VanillaCNN of d'Ascoli et al. 2019, section 3, with padding inside the convolutions.

    On 3 x 32 x 32 inputs the maps have side 17 → 8 → 8 → 3 → 3 → 1 and the convolutions 142,528 parameters.

    Args:
        input_shape: [channels, height, width]; the paper's is (3, 32, 32).
        classes: number of outputs.
        options: width.

    Raises:
        ConfigError: the inputs are not images, or smaller than 28 x 28.
    """
    if len(input_shape) != 3:
        msg = f"vanilla-cnn takes images [channels, height, width], not inputs of shape {input_shape}; for signals use cnn1d"
        raise ConfigError(msg)
    channels = options.channels
    features = nn.Sequential(
        nn.Conv2d(input_shape[0], channels, kernel_size=4, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(channels, channels, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flattened_size(features, input_shape), classes))
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
