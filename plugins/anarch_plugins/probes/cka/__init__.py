"""How alike the representations of a network and of its relatives are, layer by layer."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.cka.options import CkaOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``cka``."""
    return [
        ProbeInfo(
            name="cka",
            summary="Debiased linear CKA between the layers of a network and those of its parent, its control or other relatives.",
            target="anarch_plugins.probes.cka.probe:CkaProbe",
            options=CkaOptions,
            references=(
                "Kornblith, Norouzi, Lee, Hinton 2019, https://arxiv.org/abs/1905.00414",
                "Nguyen, Raghu, Kornblith 2021, https://arxiv.org/abs/2010.15327",
                "Song, Smola, Gretton, Bedo, Borgwardt 2012, Feature selection via dependence maximization",
                "Murphy, Zylberberg, Fyshe 2024, https://arxiv.org/abs/2405.01012",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``cka``."""
    return [
        FigureInfo(
            name="cka",
            summary="Similarity of representations, by layer and switch time.",
            title="Which representations are kept",
            target="anarch_plugins.probes.cka.figure:Cka",
            needs=("cka",),
            order=23,
        )
    ]
