"""A block of the weight matrix, and the weights' distribution: figure 8 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    LOG_WEIGHT,
    SERIES,
    WHEN,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    all_series,
    grid,
    image_limits,
    legend,
    log_weights,
    panel_title,
    require_probes,
    sentences,
    styled,
)

Array = np.ndarray[Any, Any]


class WeightMatrix(AbstractFigure):
    """A block of the weight matrix."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """A block of the first relaxed layer's matrix before and after training, and the weights' histograms, for the last switch.

        Raises:
            NothingToDrawError: the probe weights was not run.
        """
        require_probes(runs, "weights")
        every = []
        for series in all_series(runs):
            switch, (segment, *_) = list(series.branches.items())[-1]
            start, end = (series.run.tensors(segment, "weights", moment) for moment in ("start", "end"))
            if start and end:
                every.append((series, switch, start, end))
        if not every:
            msg = "the branches of these runs have no arrays of the probe weights; run again with --probe weights"
            raise NothingToDrawError(msg)
        images_too = any("block" in end for *_, end in every)
        figure, axes = grid(len(every), 3 if images_too else 1, narrow=narrow, height=2.6)
        for (series, switch, start, end), row in zip(every, axes, strict=True):
            label = series.label(runs) if len(every) > 1 else None
            _histograms(row[-1], end)
            if "block" not in end:
                for panel in row[:-1]:
                    panel.remove()
                panel_title(row[-1], f"$t_w$ = {switch:g}", label)
                continue
            images = [log_weights(start["block"]), log_weights(end["block"])]
            limits = image_limits(images)
            for panel, image, when in zip(row, images, WHEN.values(), strict=False):
                flat = max(image.shape) > 2 * min(image.shape)
                shown = panel.imshow(image, aspect="auto" if flat else "equal", **limits)
                panel_title(panel, f"$t_w$ = {switch:g}, {when}", label if narrow or panel is row[0] else None)
                panel.set_xlabel("input")
                panel.set_ylabel("output")
                panel.grid(visible=False)
            if narrow:  # below, so that all panels are as wide
                figure.colorbar(shown, ax=row[1], label=LOG_WEIGHT, fraction=0.05, pad=0.02, location="bottom")
            else:
                figure.colorbar(shown, ax=row[:2], label=LOG_WEIGHT, fraction=0.05, pad=0.02)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Which block it is."""
        return sentences(
            "Corner of the first relaxed layer's weight matrix for the last switch, just after it and after training (as "
            "d'Ascoli et al. 2019, Fig. 8), and histograms of all relaxed layers' weights after training. First seed. Where no relaxed "
            "weight is a matrix there are histograms alone.",
            "Outputs and inputs are positions in flattened maps, and rows and columns of the weight where it is no convolution's; weights "
            "that are exactly zero are blank.",
        )


def _histograms(axes: Axes, tensors: Mapping[str, Array]) -> None:
    edges = tensors["edges"]
    shown = []
    for part, colour, label in (("local", SERIES[1], "local weights"), ("off_local", SERIES[0], "off-local weights")):
        counts = np.sum([array for name, array in tensors.items() if name.endswith(f".{part}")], axis=0, dtype=float)
        if counts.sum():
            axes.stairs(counts / (counts.sum() * (edges[1] - edges[0])), edges, color=colour, label=label)
            shown.append(np.flatnonzero(counts > 1e-3 * counts.max()))
    if shown:
        bins = np.concatenate(shown)
        axes.set_xlim(edges[bins.min()], edges[bins.max() + 1])
    axes.set_xlabel(f"{LOG_WEIGHT} after training")
    axes.set_ylabel("density of all relaxed layers")
