"""ResNet-20 for small images."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="resnet20",
            summary="ResNet-20 for CIFAR: 3 x 3 residual blocks of 16, 32 and 64 channels with batch norm; 0.27 M parameters.",
            target="anarch_plugins.models.resnet.model:build",
            called="CNN",
            references=("He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, https://arxiv.org/abs/1512.03385",),
        )
    ]
