"""The figure ``sharing-spectrum``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from anarch_core.report import (
    SWITCH_TIME,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    SegmentResult,
    Series,
    all_series,
    grid,
    legend,
    probed,
    require_probes,
    sentences,
    styled,
    time_bar,
    time_colours,
)

PROBE = "sharing-rank"


class SharingSpectrum(AbstractFigure):
    """Singular values of the local weights, over the largest: 1 and nothing else where all positions share one filter."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """A row per relaxation, a panel per layer, a line per switch time; first seed."""
        require_probes(runs, PROBE)
        rows = [(series, found) for series in all_series(runs) if (found := _spectra(series))]
        if not rows:
            msg = f"the branches of these runs have no arrays of the probe {PROBE}; run again with --probe {PROBE}"
            raise NothingToDrawError(msg)
        columns = max(len(layers) for _, found in rows for layers in found.values())
        figure, axes = grid(len(rows), columns, narrow=narrow)
        for (series, found), row in zip(rows, axes, strict=True):
            colours = time_colours(found)
            layers = list(next(iter(found.values())))
            for panel, layer in zip(row, layers, strict=False):
                for switch, spectra in found.items():
                    values = spectra[layer] / max(spectra[layer][0], np.finfo(float).tiny)
                    panel.plot(range(1, len(values) + 1), values, "x-", color=colours[switch])
                panel.set_title(f"{series.label(runs)}, {layer}", loc="left")
                panel.set_xlabel("singular value")
                panel.set_ylabel("over the largest")
                panel.set_yscale("log")
                panel.set_ylim(1e-6, 2)
            for spare in row[len(layers) :]:
                spare.remove()
            time_bar(figure, row[: len(layers)], colours, SWITCH_TIME)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """How to read it."""
        return sentences(
            "Singular values of the matrix of positions and filter entries of every relaxed layer after training, over the "
            "largest of them; those under a millionth are not shown.",
            "A convolution, or one filter with a gain for every position, has one that is not zero; K filter banks have K at "
            "most. First seed.",
        )

    def findings(self, series: Series) -> list[str]:
        """The largest effective rank."""
        ranks = {
            switch: spread.mean for switch, group in series.branches.items() if (spread := probed(group, PROBE, "end", "effective_rank"))
        }
        if not ranks:
            return []
        most = max(ranks, key=lambda switch: ranks[switch])
        return [f"Positions share their filters least for t_w = {most:g}, with an effective rank of {ranks[most]:.3f}."]


def _spectra(series: Series) -> dict[float, Mapping[str, np.ndarray]]:
    """By switch time the singular values of every layer, [positions or filter entries]; only where the probe ran."""
    firsts: dict[float, SegmentResult] = {switch: group[0] for switch, group in series.branches.items()}
    found = {switch: series.run.tensors(segment, PROBE, "end") for switch, segment in firsts.items()}
    return {switch: spectra for switch, spectra in found.items() if spectra}
