"""Adam and AdamW."""

from __future__ import annotations

from anarch_core.plugin import OptimizerInfo, hookimpl
from anarch_plugins.optimizers.adam.options import AdamOptions, AdamWOptions

_MOMENTS = {"exp_avg": "gradient", "exp_avg_sq": "square"}


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    """Register the optimizers."""
    return [
        OptimizerInfo(
            name="adam",
            summary="Adam; weight decay, if any, is part of the gradient.",
            target="anarch_plugins.optimizers.adam.optimizer:build_adam",
            options=AdamOptions,
            elementwise=True,
            roles=_MOMENTS,
            references=("Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, https://arxiv.org/abs/1412.6980",),
        ),
        OptimizerInfo(
            name="adamw",
            summary="Adam with weight decay apart from the gradient.",
            target="anarch_plugins.optimizers.adam.optimizer:build_adamw",
            options=AdamWOptions,
            elementwise=True,
            roles=_MOMENTS,
            references=("Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101",),
        ),
    ]
