"""Filters before and after training: figures 5 and 6 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    CONTROL,
    INK,
    LOG_WEIGHT,
    NARROW,
    SERIES,
    WHEN,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    SegmentResult,
    Series,
    all_series,
    grid,
    image_limits,
    legend,
    log_weights,
    panel_title,
    require_probes,
    sentences,
    some,
    styled,
    why_missing,
)

Array = np.ndarray[Any, Any]


class Filters(AbstractFigure):
    """Filters before and after."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """One filter of the first relaxed layer before and after training, for some switch times and from scratch (figures 5 and 6).

        Images show the natural logarithm of ``|w|``; for signals the weights themselves and their logarithm are curves.

        Raises:
            NothingToDrawError: the probe filters was not run.
        """
        require_probes(runs, "filters")
        every = [(series, pairs) for series in all_series(runs) if (pairs := _chosen_filters(series)[0])]
        if not every:
            branches = [segment for run in runs for segment in run.segments("branch")]
            msg = f"the branches of these runs have no arrays of the probe filters, which {why_missing(branches, 'filters')}"
            raise NothingToDrawError(msg)
        dimensions = {pair.inside.ndim for _, pairs in every for pair in pairs}
        if dimensions == {1}:
            return _curves(every, runs, narrow=narrow)
        if dimensions == {2}:
            return _images(every, runs, narrow=narrow)
        msg = f"filters of {' and '.join(map(str, sorted(dimensions)))} dimensions cannot be drawn in one figure"
        raise NothingToDrawError(msg)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Which filters are shown."""
        channels = [
            f"channel {channel} for {series.label(runs)}"
            for run in runs
            for series in run.series
            for pairs, channel in [_chosen_filters(series)]
            if pairs
        ]
        return sentences(
            "One filter of the first relaxed layer before and after training (as d'Ascoli et al. 2019, Figs. 5 and 6): the "
            "weights of one output position, over the whole input of the layer, first input channel, first seed.",
            f"The output channel is the one whose weights off the receptive field grew most at the first switch ({', '.join(channels)}).",
            "Logarithms are natural; weights that are exactly zero are left out.",
        )


@attrs.frozen(kw_only=True)
class Pair:
    """A filter before and after training.

    Attributes:
        name: ``"$t_w$ = 20"`` or ``"from scratch"``.
        start: [*input size].
        end: likewise.
        inside: 1 on the receptive field, likewise.
    """

    name: str
    start: Array
    end: Array
    inside: Array


def _chosen_filters(series: Series, count: int = 3) -> tuple[list[Pair], int]:
    """Filters of the first seed, and the output channel they are of: the one whose weights off the receptive field grew most.

    The filter is that of the first input channel.
    """
    segments: list[tuple[str, SegmentResult]] = [
        (f"$t_w$ = {switch:g}", group[0]) for switch, group in series.branches.items() if switch in some(list(series.branches), count)
    ]
    segments += [("from scratch", segment) for segment in series.scratch[:1]]
    found = []
    for name, segment in segments:
        start, end = (series.run.tensors(segment, "filters", moment) for moment in ("start", "end"))
        if start and end:
            found.append((name, start["filters"], end["filters"], end["inside"]))
    if not found:
        return [], 0
    _, before, after, inside = found[0]
    grown = np.square((after - before) * (1 - inside)).reshape(len(after), -1).sum(1)
    channel = int(np.nan_to_num(grown, nan=-1.0).argmax())  # nan is the largest to argmax
    return [Pair(name=name, start=start[channel, 0], end=end[channel, 0], inside=inside) for name, start, end, inside in found], channel


def _curves(every: Sequence[tuple[Series, list[Pair]]], runs: Sequence[FinishedRun], *, narrow: bool) -> Figure:
    """Weights and their logarithms: above each other, or side by side where it is narrow."""
    columns = 2 if narrow else max(len(pairs) for _, pairs in every)
    figure, axes = grid(sum(len(pairs) for _, pairs in every) if narrow else 2 * len(every), columns, narrow=False, height=1.5)
    if narrow:
        figure.set_size_inches(NARROW, figure.get_size_inches()[1])
    row = 0
    for series, pairs in every:
        for index, pair in enumerate(pairs):
            panels = axes[row + index] if narrow else [axes[row][index], axes[row + 1][index]]
            _curve(panels, pair, series.run.constrained, labelled=narrow or index == 0)
            panel_title(panels[0], pair.name, series.label(runs) if len(every) > 1 and (narrow or index == 0) else None)
        if not narrow:
            for spare in [panel for line in axes[row : row + 2] for panel in line[len(pairs) :]]:
                spare.remove()
        row += len(pairs) if narrow else 2
    legend(figure)
    return figure


def _curve(panels: Sequence[Axes], pair: Pair, network: str, *, labelled: bool) -> None:
    place = np.arange(len(pair.inside))
    seen = np.flatnonzero(pair.inside)
    changes: tuple[Callable[[Array], Array], ...] = (np.asarray, log_weights)
    for panel, change, label in zip(panels, changes, ("weight $w$", LOG_WEIGHT), strict=True):
        if len(seen):  # at a border it may read nothing but padding
            field = f"receptive field of the {network}"
            panel.axvspan(seen[0] - 0.5, seen[-1] + 0.5, color=CONTROL, alpha=0.18, linewidth=0, label=field)
        panel.plot(place, change(pair.end), color=SERIES[0], linewidth=1.0, label=WHEN["end"])
        panel.plot(place, change(pair.start), color=INK, linewidth=0.9, linestyle=":", label=f"{WHEN['start']}, or at initialisation")
        panel.set_xlim(-0.5, len(place) - 0.5)
        if labelled:
            panel.set_ylabel(label)
    panels[1].set_xlabel("position in the input")


def _images(every: Sequence[tuple[Series, list[Pair]]], runs: Sequence[FinishedRun], *, narrow: bool) -> Figure:
    """Logarithms before and after training, and of the change between: from scratch only the change shows what was learnt."""
    columns = max(len(pairs) for _, pairs in every)
    figure, axes = grid(3 * len(every), columns, narrow=False, height=1.7)
    if narrow:
        figure.set_size_inches(NARROW, figure.get_size_inches()[1] * 0.6)
    for index, (series, pairs) in enumerate(every):
        rows = axes[3 * index : 3 * index + 3]
        images = [[log_weights(image) for image in (pair.start, pair.end, pair.end - pair.start)] for pair in pairs]
        limits = image_limits([image for column in images for image in column])
        for column, pair in enumerate(pairs):
            for row, image, when in zip(rows, images[column], ("before", WHEN["end"], "change"), strict=True):
                shown = row[column].imshow(image, **limits)
                row[column].set_xticks([])
                row[column].set_yticks([])
                if column == 0:
                    row[column].set_ylabel(when)
            panel_title(rows[0][column], pair.name, series.label(runs) if len(every) > 1 and column == 0 else None)
        for spare in [panel for row in rows for panel in row[len(pairs) :]]:
            spare.remove()
        figure.colorbar(shown, ax=[panel for row in rows for panel in row[: len(pairs)]], label=LOG_WEIGHT, fraction=0.04, pad=0.02)
    return figure
