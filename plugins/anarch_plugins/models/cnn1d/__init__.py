"""A small one-dimensional CNN for MNIST-1D."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.cnn1d.options import Cnn1dOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="cnn1d",
            summary="Three Conv1d of 25 channels (kernels 5, 3, 3, stride 2), ReLU, and a linear head: 5,210 parameters on MNIST-1D.",
            target="anarch_plugins.models.cnn1d.model:build",
            called="CNN",
            options=Cnn1dOptions,
            references=("Greydanus & Kobak 2024, https://arxiv.org/abs/2011.14439",),
        )
    ]
