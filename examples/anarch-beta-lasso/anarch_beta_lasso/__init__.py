"""β-lasso: an optimizer that lets relaxed weights leave zero only under a strong pull."""

from __future__ import annotations

from anarch_beta_lasso.options import BetaLassoOptions
from anarch_core.plugin import OptimizerInfo, hookimpl


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    """The optimizer ``beta-lasso``."""
    return [
        OptimizerInfo(
            name="beta-lasso",
            summary="SGD with an L1 penalty and a threshold on the weights of relaxed layers: small ones become and stay zero.",
            target="anarch_beta_lasso.optimizer:build",
            options=BetaLassoOptions,
            takes_model=True,
            references=("Neyshabur 2020, Towards Learning Convolutions from Scratch, algorithm 1",),
        )
    ]
