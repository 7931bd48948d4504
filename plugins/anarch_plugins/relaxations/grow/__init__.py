"""Convolutions whose kernels grow: locality is given up by steps, sharing is kept."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl
from anarch_plugins.relaxations.grow.options import GrowOptions


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``grow``."""
    return [
        RelaxationInfo(
            name="grow",
            summary="Convolution with a larger kernel at the same positions: taps are added on every side.",
            target="anarch_plugins.relaxations.grow.relaxation:GrowRelaxation",
            options=GrowOptions,
            references=("Ding et al. 2022, Scaling Up Your Kernels to 31x31, https://arxiv.org/abs/2203.06717",),
        )
    ]
