"""What the parts of the relaxed weights do: score with only some of them."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.ablation.options import AblationOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``ablation``."""
    return [
        ProbeInfo(
            name="ablation",
            summary="Score and loss with only the local, off-local or shared weights; a random mask of the local size as control.",
            target="anarch_plugins.probes.ablation.probe:AblationProbe",
            options=AblationOptions,
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, figure 7",),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``parts``."""
    return [
        FigureInfo(
            name="parts",
            summary="Score of the local and of the off-local weights alone, by switch time.",
            title="Local and off-local weights alone",
            target="anarch_plugins.probes.ablation.figure:Parts",
            needs=("ablation",),
            order=7,
        )
    ]
