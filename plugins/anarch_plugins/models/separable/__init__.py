"""A small network of depthwise separable convolutions."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.separable.options import SeparableOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="separable",
            summary="Depthwise separable convolutions, as in MobileNet, for signals, images and volumes; 5,514 parameters on MNIST-1D.",
            target="anarch_plugins.models.separable.model:build",
            called="CNN",
            options=SeparableOptions,
            references=("Howard et al. 2017, MobileNets, https://arxiv.org/abs/1704.04861",),
        )
    ]
