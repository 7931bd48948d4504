"""Stochastic gradient descent."""

from __future__ import annotations

from anarch_core.plugin import OptimizerInfo, hookimpl
from anarch_plugins.optimizers.sgd.options import SgdOptions


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    """Register the optimizer."""
    return [
        OptimizerInfo(
            name="sgd",
            summary="Stochastic gradient descent, plain as in the paper or with momentum and weight decay.",
            target="anarch_plugins.optimizers.sgd.optimizer:build",
            options=SgdOptions,
            # The buffer sums gradients, and is multiplied by the learning rate only when it is used.
            elementwise=True,
            roles={"momentum_buffer": "gradient"},
        )
    ]
