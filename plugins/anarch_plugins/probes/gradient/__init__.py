"""Norm of the gradient of the training loss: total, by part of parameter space, by layer."""

from __future__ import annotations

from anarch_core.plugin import ProbeInfo, hookimpl
from anarch_plugins.probes.gradient.options import GradientOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``gradient``."""
    return [
        ProbeInfo(
            name="gradient",
            summary="Norm of the gradient of the training loss: total, shared, unshared, off-local, and by layer.",
            target="anarch_plugins.probes.gradient.probe:GradientProbe",
            options=GradientOptions,
            axes={"norm_shared": r"gradient norm $|\nabla\mathcal{L}|_\mathrm{shared}$"},
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, figure 3",),
        )
    ]
