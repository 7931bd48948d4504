"""Whether the order of the batches decides where training ends: the barrier between two networks that differ in it alone."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.stability.options import StabilityOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``stability``."""
    return [
        ProbeInfo(
            name="stability",
            summary="Barrier between two networks trained from one on batches in different orders: instability to the noise of descent.",
            target="anarch_plugins.probes.stability.probe:StabilityProbe",
            options=StabilityOptions,
            references=("Frankle, Dziugaite, Roy, Carbin 2020, https://arxiv.org/abs/1912.05671",),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``stability``."""
    return [
        FigureInfo(
            name="stability",
            summary="Barrier between networks that met the batches in different orders, and what relaxing gains, against switch time.",
            title="Stability to the noise of descent",
            target="anarch_plugins.probes.stability.figure:Stability",
            needs=("stability",),
            order=12.6,
        )
    ]
