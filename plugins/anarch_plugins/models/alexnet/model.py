"""The network ``alexnet``."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import flattened_size


def build(input_shape: tuple[int, ...], classes: int, options: None) -> nn.Sequential:
    """The AlexNet of d'Ascoli et al. 2019, appendix B: AlexNet with a small first kernel, for 32 x 32 images.

    On 3 x 32 x 32 inputs the maps have side 17 → 8 → 8 → 3 → 3 → 3 → 3 → 1.

    Args:
        input_shape: [channels, height, width]; the paper's is (3, 32, 32).
        classes: number of outputs; the paper's is 100.
        options: there are none.

    Raises:
        ConfigError: the inputs are not images, or smaller than 28 x 28.
    """
    if len(input_shape) != 3:
        msg = f"alexnet takes images [channels, height, width], not inputs of shape {input_shape}; for signals use cnn1d"
        raise ConfigError(msg)
    features = nn.Sequential(
        nn.Conv2d(input_shape[0], 64, kernel_size=4, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(flattened_size(features, input_shape), 512),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
