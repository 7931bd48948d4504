"""Every classification model of torchvision, by name."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.torchvision_models.options import TorchvisionModelOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the models, as one component."""
    return [
        ModelInfo(
            name="torchvision",
            summary="Any classification model of torchvision by name, as in 'torchvision:resnet18'.",
            target="anarch_plugins.models.torchvision_models.model:build",
            zoo="anarch_plugins.models.torchvision_models.model:classification_models",
            options=TorchvisionModelOptions,
            references=("https://docs.pytorch.org/vision/stable/models.html#classification",),
        )
    ]
