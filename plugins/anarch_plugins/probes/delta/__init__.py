"""How far a relaxed network has left its constrained family."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl


@hookimpl
def anarch_probes() -> Iterable[ProbeInfo]:
    """The probe ``delta``."""
    return [
        ProbeInfo(
            name="delta",
            summary="Drift: off-local (the paper's δ), unshared and shared parts of the weights, per layer and normalised.",
            target="anarch_plugins.probes.delta.probe:Delta",
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, section 4.2",),
        )
    ]


@hookimpl
def anarch_figures() -> Iterable[FigureInfo]:
    """The figure ``deviation``."""
    return [
        FigureInfo(
            name="deviation",
            summary="Deviation from the constrained subspace, by switch time, loss at the switch and final score.",
            title="Deviation from the constrained subspace",
            target="anarch_plugins.probes.delta.figure:Deviation",
            needs=("delta",),
            order=4,
        )
    ]
