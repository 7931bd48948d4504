"""The VanillaCNN has the published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.models import build_model


def test_published_parameter_counts() -> None:
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 143_178
    assert sum(parameter.numel() for parameter in model.get_submodule("features").parameters()) == 142_528


def test_layers_and_their_names() -> None:
    """A pattern such as ``features.*`` finds every convolution, and padding is theirs."""
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10)
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert list(convolutions) == ["features.0", "features.3", "features.6"]
    assert [c.kernel_size[0] for c in convolutions.values()] == [4, 5, 3]
    assert [c.stride[0] for c in convolutions.values()] == [2, 1, 1]
    assert [c.padding[0] for c in convolutions.values()] == [2, 2, 1]


def test_sides_of_the_maps() -> None:
    x, sides = torch.zeros(1, 3, 32, 32), []
    for layer in build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10).get_submodule("features"):  # type: ignore[attr-defined]
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [17, 17, 8, 8, 8, 3, 3, 3, 1]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40), (3, 64, 64)])
def test_other_images(shape: tuple[int, ...]) -> None:
    assert build_model("vanilla-cnn:8", input_shape=shape, classes=7)(torch.zeros(2, *shape)).shape == (2, 7)
