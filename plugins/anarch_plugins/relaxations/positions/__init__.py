"""Weights that depend on the offset between two positions, relaxed: a weight for every pair."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``positions``."""
    return [
        RelaxationInfo(
            name="positions",
            summary="Relative position bias gets a number for every pair of positions; Toeplitz and circulant matrices become dense.",
            target="anarch_plugins.relaxations.positions.relaxation:PositionsRelaxation",
            references=("Liu et al. 2021, Swin Transformer, section 3.2, https://arxiv.org/abs/2103.14030",),
        )
    ]
