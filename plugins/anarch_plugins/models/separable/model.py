"""The network ``separable``."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import flattened_size
from anarch_plugins.models.separable.options import SeparableOptions

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def build(input_shape: tuple[int, ...], classes: int, options: SeparableOptions) -> nn.Sequential:
    """A strided convolution, blocks of a depthwise and a pointwise one, batch normalisation after each, and a linear head.

    Args:
        input_shape: [channels, *spatial], of one to three spatial axes.
        classes: number of outputs.
        options: size.

    Raises:
        ConfigError: the inputs have another number of axes, or the options do not go together.
    """
    axes = len(input_shape) - 1
    if axes not in CONVOLUTIONS:
        msg = f"separable takes signals, images or volumes [channels, *spatial], not inputs of shape {input_shape}"
        raise ConfigError(msg)
    channels, groups = options.channels, options.groups or options.channels
    if channels % groups:
        msg = f"separable has {channels} channels, which {groups} groups do not divide"
        raise ConfigError(msg)
    if options.kernel % 2 == 0:
        msg = f"separable needs a kernel with a middle, an odd number of taps, not {options.kernel}"
        raise ConfigError(msg)
    conv, norm = CONVOLUTIONS[axes], NORMS[axes]
    stem = OrderedDict(conv=conv(input_shape[0], channels, 3, stride=2, padding=1, bias=False), norm=norm(channels), relu=nn.ReLU())
    blocks: list[nn.Module] = []
    for block in range(options.blocks):
        stride, padding = 2 - block % 2, options.kernel // 2
        layers = OrderedDict(
            depthwise=conv(channels, channels, options.kernel, stride=stride, padding=padding, groups=groups, bias=False),
            norm1=norm(channels),
            relu1=nn.ReLU(),
            pointwise=conv(channels, channels, 1, bias=False),
            norm2=norm(channels),
            relu2=nn.ReLU(),
        )
        blocks.append(nn.Sequential(layers))
    features = nn.Sequential(OrderedDict(stem=nn.Sequential(stem), blocks=nn.Sequential(*blocks)))
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flattened_size(features, input_shape), classes))
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
