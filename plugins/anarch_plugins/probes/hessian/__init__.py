"""Curvature of the training loss: eigenvalues with certificates, density, trace; by subspace and by layer."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.hessian.options import HessianOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``hessian``."""
    return [
        ProbeInfo(
            name="hessian",
            summary="Curvature of the training loss: largest eigenvalue with its error; smallest, top-k, trace, density on request.",
            target="anarch_plugins.probes.hessian.probe:HessianProbe",
            options=HessianOptions,
            axes={"lambda_max_shared": r"largest eigenvalue $\lambda_\mathrm{max,\,shared}$"},
            references=(
                "d'Ascoli, Sagun, Bruna, Biroli 2019, figure 3",
                "Pearlmutter 1994, Fast exact multiplication by the Hessian",
                "Ghorbani, Krishnan, Xiao 2019, https://arxiv.org/abs/1901.10159",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``spectrum-time``."""
    return [
        FigureInfo(
            name="spectrum-time",
            summary="Largest eigenvalue along the training of branches, by part of parameter space, where --probe-at measured it.",
            title="Curvature along the training",
            target="anarch_plugins.probes.hessian.figure:SpectrumTime",
            needs=("hessian",),
            order=21,
        )
    ]
