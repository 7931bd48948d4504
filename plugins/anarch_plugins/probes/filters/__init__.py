"""Pictures of filters: what single output positions of a layer read, over the whole input."""

from __future__ import annotations

from anarch_core.plugin import FigureInfo, ProbeInfo, hookimpl
from anarch_plugins.probes.filters.options import FiltersOptions


@hookimpl
def anarch_probes() -> list[ProbeInfo]:
    """The probe ``filters``."""
    return [
        ProbeInfo(
            name="filters",
            summary="Filters of a layer as images over its whole input, to draw.",
            target="anarch_plugins.probes.filters.probe:FiltersProbe",
            options=FiltersOptions,
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, figures 5 and 6",),
        )
    ]


@hookimpl
def anarch_figures() -> list[FigureInfo]:
    """The figure ``filters``."""
    return [
        FigureInfo(
            name="filters",
            summary="One filter of the first relaxed layer before and after training.",
            title="Filters before and after",
            target="anarch_plugins.probes.filters.figure:Filters",
            needs=("filters",),
            order=5,
        )
    ]
