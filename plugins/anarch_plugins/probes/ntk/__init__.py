"""The neural tangent kernel: how well it is aligned with the labels, in which part of parameter space, and how far it has moved."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.ntk.options import NtkOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``ntk``."""
    return [
        ProbeInfo(
            name="ntk",
            summary="Neural tangent kernel: alignment with the labels, effective rank, distance moved; shared, unshared and off-local.",
            target="anarch_plugins.probes.ntk.probe:NtkProbe",
            options=NtkOptions,
            references=(
                "Jacot, Gabriel, Hongler 2018, Neural Tangent Kernel, https://arxiv.org/abs/1806.07572",
                "Cristianini, Shawe-Taylor, Elisseeff, Kandola 2001, On Kernel-Target Alignment",
                "Baratin et al. 2021, Implicit Regularization via Neural Feature Alignment, https://arxiv.org/abs/2008.00938",
                "Fort et al. 2020, Deep learning versus kernel learning, https://arxiv.org/abs/2010.15110",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``ntk``."""
    return [
        FigureInfo(
            name="ntk",
            summary="Alignment of the neural tangent kernel with the labels, and which part of parameter space it comes from.",
            title="The tangent kernel and the labels",
            target="anarch_plugins.probes.ntk.figure:Ntk",
            needs=("ntk",),
            order=22,
        )
    ]
