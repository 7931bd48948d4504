"""A bound on how far relaxed layers are from constrained ones, held by multipliers."""

from __future__ import annotations

from anarch_core.plugin import PenaltyInfo, hookimpl
from anarch_plugins.penalties.bound.options import BoundOptions


@hookimpl
def anarch_penalties() -> list[PenaltyInfo]:
    """The penalty ``bound``."""
    return [
        PenaltyInfo(
            name="bound",
            summary="Holds the share of the unshared and off-local parts in each layer below a bound, by dual ascent: bound:0.05.",
            target="anarch_plugins.penalties.bound.penalty:BoundPenalty",
            options=BoundOptions,
            references=("arXiv:2505.13631", "arXiv:2602.02853"),
        )
    ]
