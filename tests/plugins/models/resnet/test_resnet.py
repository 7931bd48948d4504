"""ResNet-20."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.models import build_model
from anarch_plugins.models.resnet.model import SubsampledShortcut


def test_published_parameter_count() -> None:
    """0.27 M, He et al. 2016, table 6."""
    model = build_model("resnet20", input_shape=(3, 32, 32), classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722


def test_twenty_layers_with_weights() -> None:
    model = build_model("resnet20", input_shape=(3, 32, 32), classes=10)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 20


def test_shortcut_subsamples_and_adds_empty_channels() -> None:
    x = torch.randn(2, 3, 5, 5)
    y = SubsampledShortcut(new_channels=4, stride=2)(x)
    assert y.shape == (2, 7, 3, 3)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23)])
def test_other_images(shape: tuple[int, ...]) -> None:
    assert build_model("resnet20", input_shape=shape, classes=3)(torch.randn(2, *shape)).shape == (2, 3)
