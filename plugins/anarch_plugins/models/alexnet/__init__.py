"""The paper's AlexNet for small images."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="alexnet",
            summary="The paper's AlexNet for CIFAR-100: five convolutions (2.45 M parameters) and three linear layers with dropout.",
            target="anarch_plugins.models.alexnet.model:build",
            called="CNN",
            references=(
                "d'Ascoli et al. 2019, appendix B, https://arxiv.org/abs/1906.06766",
                "Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks",
            ),
        )
    ]
