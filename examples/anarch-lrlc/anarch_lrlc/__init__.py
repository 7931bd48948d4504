"""Low-rank locally connected layers, and the rank of weight sharing."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, RelaxationInfo, hookimpl
from anarch_lrlc.options import LowRankOptions

REFERENCES = ("Elsayed, Ramachandran, Shlens, Kornblith 2020, Revisiting Spatial Invariance with Low-Rank Local Connectivity",)


@hookimpl
def anarch_relaxations() -> list[RelaxationInfo]:
    """The relaxation ``lrlc``."""
    return [
        RelaxationInfo(
            name="lrlc",
            summary="Low-rank locally connected layer: every position mixes a few filter banks in its own way.",
            target="anarch_lrlc.relaxation:LowRankRelaxation",
            options=LowRankOptions,
            references=REFERENCES,
        )
    ]


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``sharing-rank``."""
    return [
        ProbeInfo(
            name="sharing-rank",
            summary="Singular spectrum of the local weights, positions against filter entries: 1 where weights are shared.",
            target="anarch_lrlc.probe:SharingRank",
            references=REFERENCES,
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``sharing-spectrum``."""
    return [
        FigureInfo(
            name="sharing-spectrum",
            summary="Singular values of the local weights of every layer after training, by switch time.",
            title="How many filters the positions share",
            target="anarch_lrlc.figure:SharingSpectrum",
            needs=("sharing-rank",),
            references=REFERENCES,
        )
    ]
