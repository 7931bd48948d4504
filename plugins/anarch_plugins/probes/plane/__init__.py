"""The landscape on planes: through a relaxed network, its projection and the network it was lifted from, and around it at random."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.plane.options import PlaneOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``plane``."""
    return [
        ProbeInfo(
            name="plane",
            summary="Loss and score on the plane through a relaxed network, its projection and its parent, or around it at random.",
            target="anarch_plugins.probes.plane.probe:PlaneProbe",
            options=PlaneOptions,
            references=(
                "Li, Xu, Taylor, Studer, Goldstein 2018, Visualizing the loss landscape of neural nets, https://arxiv.org/abs/1712.09913",
                "Garipov, Izmailov, Podoprikhin, Vetrov, Wilson 2018, https://arxiv.org/abs/1802.10026",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``plane``."""
    return [
        FigureInfo(
            name="plane",
            summary="Contours of the training loss on planes through and around the trained relaxed network.",
            title="Planes through the landscape",
            target="anarch_plugins.probes.plane.figure:PlaneFigure",
            needs=("plane",),
            order=12.5,
        )
    ]
