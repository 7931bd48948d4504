"""Pictures of the weights: a block of a layer's matrix, and the distribution of weights inside and outside of receptive fields."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.weights.options import WeightsOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``weights``."""
    return [
        ProbeInfo(
            name="weights",
            summary="A block of a layer's matrix to draw, and histograms of log |w| inside and outside of the receptive fields.",
            target="anarch_plugins.probes.weights.probe:WeightsProbe",
            options=WeightsOptions,
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, figure 8",),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``weight-matrix``."""
    return [
        FigureInfo(
            name="weight-matrix",
            summary="A block of the first relaxed layer's matrix before and after training, and histograms.",
            title="A block of the weight matrix",
            target="anarch_plugins.probes.weights.figure:WeightMatrix",
            needs=("weights",),
            order=8,
        )
    ]
