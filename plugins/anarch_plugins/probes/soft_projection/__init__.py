"""How much of what a relaxed network gained is left on the way back: its parts scaled by numbers from 1 to 0."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.soft_projection.options import SoftProjectionOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``soft-projection``."""
    return [
        ProbeInfo(
            name="soft-projection",
            summary="Score and loss with the unshared and off-local parts scaled by s, from the network (1) to its projection (0).",
            target="anarch_plugins.probes.soft_projection.probe:SoftProjectionProbe",
            options=SoftProjectionOptions,
            references=("arXiv:2603.26657",),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``soft-projection``."""
    return [
        FigureInfo(
            name="soft-projection",
            summary="Score of the network as its unshared and off-local parts are scaled down.",
            title="On the way back to the constraints",
            target="anarch_plugins.probes.soft_projection.figure:SoftProjection",
            needs=("soft-projection",),
            order=7.5,
        )
    ]
