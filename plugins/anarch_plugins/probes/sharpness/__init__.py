"""How much the training loss rises within a radius of a network: on average, at its worst, and after SAM's step of ascent."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.sharpness.options import SharpnessOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``sharpness``."""
    return [
        ProbeInfo(
            name="sharpness",
            summary="How much the training loss rises within a radius: on average, at its worst, by SAM's step; adaptive and by filter.",
            target="anarch_plugins.probes.sharpness.probe:SharpnessProbe",
            options=SharpnessOptions,
            references=(
                "Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2017, https://arxiv.org/abs/1609.04836",
                "Li, Xu, Taylor, Studer, Goldstein 2018, https://arxiv.org/abs/1712.09913",
                "Jiang, Neyshabur, Mobahi, Krishnan, Bengio 2020, https://arxiv.org/abs/1912.02178",
                "Foret, Kleiner, Mobahi, Neyshabur 2021, https://arxiv.org/abs/2010.01412",
                "Kwon, Kim, Park, Choi 2021, https://arxiv.org/abs/2102.11600",
                "Andriushchenko, Croce, Müller, Hein, Flammarion 2023, https://arxiv.org/abs/2302.07011",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``sharpness``."""
    return [
        FigureInfo(
            name="sharpness",
            summary="Average, worst and SAM's sharpness against switch time, in plain, adaptive and filter lengths.",
            title="How sharp the loss is",
            target="anarch_plugins.probes.sharpness.figure:Sharpness",
            needs=("sharpness",),
            order=24,
        )
    ]
