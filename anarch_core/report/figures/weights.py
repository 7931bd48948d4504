"""What the weights look like: figures 5, 6 and 8 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, NothingToDrawError, Series, all_series, some
from anarch_core.report.figures.style import CONTROL, INK, NARROW, SERIES, grid, legend, styled

Array = np.ndarray[Any, Any]

LOG_WEIGHT = r"$\ln|w|$"


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


@styled
def filters(runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
    """One filter of the first relaxed layer before and after training, for some switch times and from scratch (figures 5 and 6).

    Images show the natural logarithm of ``|w|``; for signals the weights themselves and their logarithm are curves.

    Raises:
        NothingToDrawError: the probe filters was not run.
    """
    every = [(series, pairs) for series in all_series(runs) if (pairs := chosen_filters(series)[0])]
    if not every:
        msg = "the probe filters was not run; run again with --probe filters"
        raise NothingToDrawError(msg)
    dimensions = {pair.inside.ndim for _, pairs in every for pair in pairs}
    if dimensions == {1}:
        return _curves(every, runs, narrow=narrow)
    if dimensions == {2}:
        return _images(every, runs, narrow=narrow)
    msg = f"filters of {' and '.join(map(str, sorted(dimensions)))} dimensions cannot be drawn in one figure"
    raise NothingToDrawError(msg)


def chosen_filters(series: Series, count: int = 3) -> tuple[list[Pair], int]:
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
    channel = int(grown.argmax())
    return [Pair(name=name, start=start[channel, 0], end=end[channel, 0], inside=inside) for name, start, end, inside in found], channel


@styled
def weight_matrix(runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
    """A block of the first relaxed layer's matrix before and after training, and the weights' histograms (figure 8), for the last switch.

    Raises:
        NothingToDrawError: the probe weights was not run.
    """
    every = []
    for series in all_series(runs):
        segment = list(series.branches.values())[-1][0]
        start, end = (series.run.tensors(segment, "weights", moment) for moment in ("start", "end"))
        if start and end:
            every.append((series, segment, start, end))
    if not every:
        msg = "the probe weights was not run; run again with --probe weights"
        raise NothingToDrawError(msg)
    figure, axes = grid(len(every), 3, narrow=narrow, height=2.6)
    for (series, segment, start, end), row in zip(every, axes, strict=True):
        images = [_log(start["block"]), _log(end["block"])]
        limits = _limits(images)
        for panel, image, when in zip(row, images, ("at the switch", "after training"), strict=False):
            flat = max(image.shape) > 2 * min(image.shape)
            shown = panel.imshow(image, aspect="auto" if flat else "equal", **limits)
            label = series.label(runs) if len(every) > 1 and (narrow or panel is row[0]) else None
            _title(panel, f"$t_w$ = {segment.switch_epoch:g}, {when}", label)
            panel.set_xlabel("input")
            panel.set_ylabel("output")
            panel.grid(visible=False)
        figure.colorbar(shown, ax=row[:2] if not narrow else row[1], label=LOG_WEIGHT, fraction=0.05, pad=0.02)
        _histograms(row[2], end)
    legend(figure)
    return figure


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
            _curve(panels, pair, labelled=narrow or index == 0)
            _title(panels[0], pair.name, series.label(runs) if len(every) > 1 and (narrow or index == 0) else None)
        if not narrow:
            for spare in [panel for line in axes[row : row + 2] for panel in line[len(pairs) :]]:
                spare.remove()
        row += len(pairs) if narrow else 2
    legend(figure)
    return figure


def _curve(panels: Sequence[Axes], pair: Pair, *, labelled: bool) -> None:
    place = np.arange(len(pair.inside))
    seen = np.flatnonzero(pair.inside)
    changes: tuple[Callable[[Array], Array], ...] = (np.asarray, _log)
    for panel, change, label in zip(panels, changes, ("weight $w$", LOG_WEIGHT), strict=True):
        panel.axvspan(seen[0] - 0.5, seen[-1] + 0.5, color=CONTROL, alpha=0.18, linewidth=0, label="receptive field of the CNN")
        panel.plot(place, change(pair.end), color=SERIES[0], linewidth=1.0, label="after training")
        panel.plot(place, change(pair.start), color=INK, linewidth=0.9, linestyle="--", label="before")
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
        images = [[_log(image) for image in (pair.start, pair.end, pair.end - pair.start)] for pair in pairs]
        limits = _limits([image for column in images for image in column])
        for column, pair in enumerate(pairs):
            for row, image, when in zip(rows, images[column], ("before", "after training", "change"), strict=True):
                shown = row[column].imshow(image, **limits)
                row[column].set_xticks([])
                row[column].set_yticks([])
                if column == 0:
                    row[column].set_ylabel(when)
            _title(rows[0][column], pair.name, series.label(runs) if len(every) > 1 and column == 0 else None)
        for spare in [panel for row in rows for panel in row[len(pairs) :]]:
            spare.remove()
        figure.colorbar(shown, ax=[panel for row in rows for panel in row[: len(pairs)]], label=LOG_WEIGHT, fraction=0.04, pad=0.02)
    return figure


def _title(axes: Axes, name: str, series: str | None) -> None:
    """A panel's title, under that of its row in the first panel; the latter may reach over the panels beside it."""
    axes.set_title(name if series is None else f"{series}\n{name}", loc="left")


def _log(weights: Array) -> Array:
    """Logarithm of the absolute value; weights that are exactly zero are left blank."""
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.abs(weights.astype(np.float64)))
    return np.where(np.isfinite(logarithms), logarithms, np.nan)


def _limits(images: Sequence[Array]) -> dict[str, Any]:
    known = np.concatenate([image[np.isfinite(image)] for image in images])
    low, high = (-1.0, 0.0) if not len(known) else np.percentile(known, [1, 99.8])
    return {"vmin": float(low), "vmax": float(max(high, low + 1e-6)), "cmap": mpl.colormaps["viridis"], "interpolation": "nearest"}
