"""How translation-equivariant a network still is, and where its weights are."""

from __future__ import annotations

from anarch_core.plugin import ProbeInfo, hookimpl
from anarch_plugins.probes.equivariance.options import EquivarianceOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
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
