"""The network ``resnet20``."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from anarch_core.errors import ConfigError

BLOCKS_PER_STAGE = 3


def build(input_shape: tuple[int, ...], classes: int, options: None) -> nn.Sequential:
    """ResNet-20 of He et al. 2016, section 4.2, with their parameter-free shortcuts (option A) and initialisation.

    269,722 parameters on 3 x 32 x 32 inputs and 10 classes.

    Args:
        input_shape: [channels, height, width].
        classes: number of outputs.
        options: there are none.

    Raises:
        ConfigError: the inputs are not images.
    """
    if len(input_shape) != 3:
        msg = f"resnet20 takes images [channels, height, width], not inputs of shape {input_shape}; for signals use cnn1d"
        raise ConfigError(msg)
    stem = nn.Sequential(
        nn.Conv2d(input_shape[0], 16, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    stages = {"stage1": _stage(16, 16, stride=1), "stage2": _stage(16, 32, stride=2), "stage3": _stage(32, 64, stride=2)}
    features = nn.Sequential(OrderedDict(stem=stem, **stages))
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(channels, channels, stride=1) for _ in range(BLOCKS_PER_STAGE - 1))
    return nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, [n, in_channels, h, w] to [n, channels, h / stride, w / stride]."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if in_channels == channels else SubsampledShortcut(channels - in_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        output: torch.Tensor = self.relu2(y + self.shortcut(x))
        return output


class SubsampledShortcut(nn.Module):
    """Option A of He et al. 2016, section 3.3: every ``stride``-th position, and zeros for the channels that are new."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input, subsampled and widened."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
