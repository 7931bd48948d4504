"""Unrolled iterative shrinkage (ISTA) with a learned dictionary."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.ista.options import IstaOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="ista",
            summary="A sparse code of the input by unrolled ISTA, one dictionary for both directions and all steps, and a linear head.",
            target="anarch_plugins.models.ista.model:build",
            options=IstaOptions,
            references=(
                "Daubechies, Defrise & De Mol 2004",
                "Gregor & LeCun 2010, Learning fast approximations of sparse coding (what it is when untied)",
            ),
        )
    ]
