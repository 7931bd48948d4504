"""Residual pathways: a convolution plus a dense layer, and an optimizer that gives the two their own rates."""

from __future__ import annotations

from anarch_core.plugin import OptimizerInfo, RelaxationInfo, hookimpl
from anarch_residual.options import ResidualSgdOptions

REFERENCES = ("Finzi, Benton, Wilson 2021, Residual Pathway Priors for Soft Equivariance Constraints",)


@hookimpl
def anarch_relaxations() -> list[RelaxationInfo]:
    """The relaxation ``residual``."""
    return [
        RelaxationInfo(
            name="residual",
            summary="Convolution plus a dense layer that starts at zero: the eFCN, in coordinates that keep the convolution's own.",
            target="anarch_residual.relaxation:ResidualRelaxation",
            references=REFERENCES,
        )
    ]


@hookimpl
def anarch_optimizers() -> list[OptimizerInfo]:
    """The optimizer ``residual-sgd``."""
    return [
        OptimizerInfo(
            name="residual-sgd",
            summary="SGD with one rate for the convolution and another for the dense residual of every layer that residual made.",
            target="anarch_residual.optimizer:build",
            options=ResidualSgdOptions,
            takes_model=True,
            roles={"momentum_buffer": "gradient"},
            references=REFERENCES,
        )
    ]
