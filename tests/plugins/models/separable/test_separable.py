"""The network of depthwise separable convolutions."""

from __future__ import annotations

import pytest
import torch

from anarch_core.errors import ConfigError
from anarch_core.models import build_model


def test_spatial_convolutions_see_one_channel_each() -> None:
    model = build_model("separable", input_shape=(1, 40), classes=10)
    blocks = model.get_submodule("features.blocks")
    assert [block.depthwise.groups for block in blocks] == [32, 32, 32]  # type: ignore[union-attr]
    assert [block.depthwise.stride for block in blocks] == [(2,), (1,), (2,)]  # type: ignore[union-attr]
    assert [block.pointwise.kernel_size for block in blocks] == [(1,), (1,), (1,)]  # type: ignore[union-attr]
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_514


@pytest.mark.parametrize("shape", [(1, 40), (3, 16, 12), (1, 8, 8, 9), (2, 1)])
def test_signals_images_and_volumes(shape: tuple[int, ...]) -> None:
    model = build_model("separable", input_shape=shape, classes=4, options={"channels": 6, "blocks": 2, "groups": 3, "kernel": 5})
    assert model(torch.zeros(2, *shape)).shape == (2, 4)
    assert model.get_submodule("features.blocks.0.depthwise").groups == 3


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((40,), {}, r"\[channels, \*spatial\], not inputs of shape \(40,\)"),
        ((1, 40), {"groups": 5}, "32 channels, which 5 groups do not divide"),
        ((1, 40), {"kernel": 4}, "an odd number of taps, not 4"),
    ],
)
def test_what_does_not_go_together_is_refused(shape: tuple[int, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("separable", input_shape=shape, classes=4, options=options)
