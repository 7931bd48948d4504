"""The path between a relaxed network and the constrained one it is compared with."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.interpolation.options import InterpolationOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``interpolation``."""
    return [
        ProbeInfo(
            name="interpolation",
            summary="Loss and score on paths from a relaxed network to its own projection, its parent or its start; barriers.",
            target="anarch_plugins.probes.interpolation.probe:InterpolationProbe",
            options=InterpolationOptions,
            references=(
                "d'Ascoli, Sagun, Bruna, Biroli 2019, appendix C and figure 12",
                "Draxler, Veschgini, Salmhofer, Hamprecht 2018, https://arxiv.org/abs/1803.00885",
                "Henkelman, Jónsson 2000, Improved tangent estimate in the nudged elastic band method",
                "Garipov, Izmailov, Podoprikhin, Vetrov, Wilson 2018, https://arxiv.org/abs/1802.10026",
                "Adilova, Andriushchenko, Kamp, Fischer, Jaggi 2024, https://arxiv.org/abs/2307.06966",
            ),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figures ``paths`` and ``layer-paths``."""
    return [
        FigureInfo(
            name="paths",
            summary="Loss and score on paths into the trained relaxed network.",
            title="On the way into the relaxed network",
            target="anarch_plugins.probes.interpolation.figure:Paths",
            needs=("interpolation",),
            order=12,
        ),
        FigureInfo(
            name="layer-paths",
            summary="Loss with one layer averaged between two networks, and the barrier on its path, for every layer.",
            title="One layer at a time",
            target="anarch_plugins.probes.interpolation.layer_figure:LayerPaths",
            needs=("interpolation",),
            order=12.25,
        ),
    ]
