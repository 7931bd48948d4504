"""The barrier between a network and the same one of another seed, before and after their channels are matched."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.alignment.options import AlignmentOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``alignment``."""
    return [
        ProbeInfo(
            name="alignment",
            summary="Barrier and distance to the same network of another seed, before and after channels are permuted to match.",
            target="anarch_plugins.probes.alignment.probe:AlignmentProbe",
            options=AlignmentOptions,
            references=(
                "Ainsworth, Hayase, Srinivasa 2022, Git Re-Basin, https://arxiv.org/abs/2209.04836",
                "Entezari, Sedghi, Saukh, Neyshabur 2021, https://arxiv.org/abs/2110.06296",
                "Jordan, Sedghi, Saukh, Entezari, Neyshabur 2022, REPAIR, https://arxiv.org/abs/2211.08403",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``alignment``."""
    return [
        FigureInfo(
            name="alignment",
            summary="Barrier to the same network of another seed, as trained and with channels matched, by switch time.",
            title="Between seeds, up to permutations",
            target="anarch_plugins.probes.alignment.figure:AlignmentFigure",
            needs=("alignment",),
            order=13,
        )
    ]
