"""Stochastic gradient descent."""

from __future__ import annotations

from anarch_core import hookimpl
from anarch_core.api import OptimizerInfo
from anarch_plugins.sgd.options import SgdOptions


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    """Register the optimizer."""
    return [
        OptimizerInfo(
            name="sgd",
            summary="Stochastic gradient descent, plain as in the paper or with momentum and weight decay.",
            target="anarch_plugins.sgd.optimizer:build",
            options=SgdOptions,
        )
    ]
