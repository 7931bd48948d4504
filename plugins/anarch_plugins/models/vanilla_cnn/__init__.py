"""The paper's VanillaCNN."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.vanilla_cnn.options import VanillaCnnOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="vanilla-cnn",
            summary="The paper's VanillaCNN: three convolutions of 64 channels and a linear head; 143,178 parameters on CIFAR-10.",
            target="anarch_plugins.models.vanilla_cnn.model:build",
            called="CNN",
            options=VanillaCnnOptions,
            references=("d'Ascoli et al. 2019, Finding the Needle in the Haystack with Convolutions, https://arxiv.org/abs/1906.06766",),
        )
    ]
