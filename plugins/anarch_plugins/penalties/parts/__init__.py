"""A penalty on what of relaxed layers is not constrained, with a weight over time."""

from __future__ import annotations

from anarch_core.plugin import PenaltyInfo, hookimpl
from anarch_plugins.penalties.parts.options import PartsOptions


@hookimpl
def anarch_penalties() -> list[PenaltyInfo]:
    """The penalty ``parts``."""
    return [
        PenaltyInfo(
            name="parts",
            summary="Half the squared norm of the unshared and off-local parts of relaxed layers, times a weight over time: parts:0.1.",
            target="anarch_plugins.penalties.parts.penalty:PartsPenalty",
            options=PartsOptions,
            references=("Finzi, Benton, Wilson 2021, arXiv:2112.01388", "arXiv:2601.05028"),
        )
    ]
