"""How translation-equivariant a network still is, and where its weights are."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.equivariance.options import EquivarianceOptions


@hookimpl
def anarch_probes() -> Iterable[ProbeInfo]:
    """The probe ``equivariance``."""
    return [
        ProbeInfo(
            name="equivariance",
            summary="Change of the output under shifted inputs, equivariance error of every layer, and extent of its receptive fields.",
            target="anarch_plugins.probes.equivariance.probe:EquivarianceProbe",
            options=EquivarianceOptions,
            references=("Gruver, Finzi, Goldblum, Wilson 2023, https://arxiv.org/abs/2210.02984",),
        )
    ]


@hookimpl
def anarch_figures() -> Iterable[FigureInfo]:
    """The figure ``equivariance``."""
    return [
        FigureInfo(
            name="equivariance",
            summary="Equivariance error of layers, change of the output under shifts, and distance of weights, by switch time.",
            title="How translation-equivariant the networks are",
            target="anarch_plugins.probes.equivariance.figure:Equivariance",
            needs=("equivariance",),
            order=20,
        )
    ]
