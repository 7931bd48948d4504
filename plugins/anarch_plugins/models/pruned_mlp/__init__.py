"""LeNet-300-100 with pruned weights."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.pruned_mlp.options import PrunedMlpOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="pruned-mlp",
            summary="LeNet-300-100 whose weights are pruned at initialisation (torch.nn.utils.prune): 4,750 of 43,000 in use on MNIST-1D.",
            target="anarch_plugins.models.pruned_mlp.model:build",
            options=PrunedMlpOptions,
            references=(
                "LeCun et al. 1998",
                "Frankle & Carbin 2019, https://arxiv.org/abs/1803.03635",
            ),
        )
    ]
