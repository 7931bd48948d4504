"""How alike the layers of relaxed networks and of their relatives are after training, by layer and switch time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from anarch_core.report import (
    SWITCH_TIME,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    SegmentResult,
    Series,
    Spread,
    all_series,
    by_switch,
    constrained,
    grid,
    panel_title,
    require_probes,
    sentences,
    styled,
    why_missing,
)

OUTPUT = "output"
"""Label of the row below those of the layers."""

SHORT = 14
"""Letters of paths of layers up to which three panels stand side by side; otherwise two do."""

LETTERS = 24
"""Of the path of a layer, the last ones that its label has."""

ROWS = 45
"""Layers of a panel up to which each has a label."""

WRITTEN = 9, 24
"""Switch times and layers of a panel up to which numbers are written into it."""


class Cka(AbstractFigure):
    """Which representations are kept."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """CKA after training by layer and switch time: a panel for every relaxation and network that is compared with.

        Raises:
            NothingToDrawError: the probe cka was not run.
        """
        maps = _maps(runs)
        networks = list(dict.fromkeys(heat.network for heat in maps))
        columns = min(len(networks), 2 if any(len(layer) > SHORT for heat in maps for layer in heat.layers) else 3)
        lines = -(-len(networks) // columns)
        series = {(heat.series.run.label, heat.series.relaxation): None for heat in maps}
        figure, axes = grid(len(series) * lines, columns, narrow=narrow, height=_height(maps))
        cells = [panel for row in axes for panel in row]
        places = {name: cells[index * lines * columns :] for index, name in enumerate(series)}
        low = _lowest(maps)
        shown: list[Axes] = []
        named: set[tuple[str, str]] = set()
        for heat in maps:
            name = heat.series.run.label, heat.series.relaxation
            panel = places[name][networks.index(heat.network)]
            image = _draw(panel, heat, low)
            panel_title(panel, f"with {_in_words(heat)}", heat.series.label(runs) if narrow or name not in named else None)
            named.add(name)
            shown.append(panel)
        for panel in [panel for row in axes for panel in row if panel not in shown]:
            panel.remove()
        where: dict[str, Any] = {"location": "bottom", "pad": 0.01} if narrow else {"pad": 0.02}
        figure.colorbar(image, ax=shown, label="CKA", fraction=0.05, aspect=28, **where)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What is compared, how it is measured, and which layer moved most."""
        maps = _maps(runs)
        seeds = max(len(run.seeds) for run in runs)
        samples, part = _samples(runs)
        blank = any(not np.isfinite(heat.values).all() for heat in maps)
        networks = f"the {constrained(runs)}" if any(heat.network in ("parent", "control") for heat in maps) else "another network"
        return sentences(
            f"How alike the representations of the trained relaxed network and of {networks} are, layer by layer on {samples} {part} "
            "samples: debiased linear CKA (Kornblith et al. 2019, Nguyen et al. 2021), 1 where they are the same up to rotation and scale, "
            "0 on average where they are independent.",
            "Its twin met the batches in another order." if any(heat.network == "twin" for heat in maps) else "",
            "Layers from the input (top) to the output." + (" Means over seeds." if seeds > 1 else ""),
            f"Colours go from {_lowest(maps):.1f} to 1, in all panels."
            + (" Blank: undefined, as where a layer gives the same for all samples." if blank else ""),
            *(f"{heat.series.label(runs)} with {_in_words(heat)}: {seen}" for heat in maps if (seen := _seen(heat))),
        )

    def findings(self, series: Series) -> list[str]:
        """The mean over layers for the first switch and the last."""
        return [text for heat in _of_series(series) if (text := _found(heat))]


@attrs.frozen(kw_only=True)
class HeatMap:
    """What one panel shows.

    Attributes:
        series: of the relaxed networks.
        network: what they are compared with: ``"parent"``, ...
        layers: by path, from the input to the output.
        switches: epochs.
        values: mean CKA over seeds, [layers, switches]; nan where it is undefined.
    """

    series: Series
    network: str
    layers: Sequence[str]
    switches: Sequence[float]
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]]


def _maps(runs: Sequence[FinishedRun]) -> list[HeatMap]:
    require_probes(runs, "cka")
    found = [heat for series in all_series(runs) for heat in _of_series(series)]
    if not found:
        branches = [segment for run in runs for segment in run.segments("branch")]
        msg = f"the branches of these runs have no similarity by layer of the probe cka, which {why_missing(branches, 'cka')}"
        raise NothingToDrawError(msg)
    return found


def _of_series(series: Series) -> Iterator[HeatMap]:
    other_orders = by_switch(series.run.segments("branch", series.relaxation, noise=True))
    branches = [segment for groups in (series.branches, other_orders) for group in groups.values() for segment in group]
    for network in dict.fromkeys(name for segment in branches for name in _compared(segment)):
        groups = _with(network, series.branches) or _with(network, other_orders)
        layers = list(dict.fromkeys(layer for seeds in groups.values() for seed in seeds for layer in seed))
        means = [[Spread.of(seed.get(layer) for seed in seeds) for seeds in groups.values()] for layer in layers]
        values = np.array([[math.nan if spread is None else spread.mean for spread in row] for row in means])
        yield HeatMap(series=series, network=network, layers=layers, switches=list(groups), values=values)


def _with(network: str, branches: Mapping[float, Sequence[SegmentResult]]) -> dict[float, list[Mapping[str, float | None]]]:
    """CKA by layer of the branches that were compared with a network, by switch time."""
    found = {switch: [seen[network] for one in group if network in (seen := _compared(one))] for switch, group in branches.items()}
    return {switch: seeds for switch, seeds in found.items() if seeds}


def _compared(segment: SegmentResult) -> Mapping[str, Mapping[str, float | None]]:
    """CKA after training by layer, by the network that it was compared with."""
    against = segment.details("cka", "end").get("against", {})
    return {name: {**found["layers"], OUTPUT: found["output"]} for name, found in against.items()}


def _draw(panel: Axes, heat: HeatMap, low: float) -> AxesImage:
    image = panel.imshow(heat.values, aspect="auto", vmin=low, vmax=1.0, cmap="viridis", interpolation="nearest")
    names = [layer if len(layer) <= LETTERS else f"…{layer[1 - LETTERS :]}" for layer in heat.layers]
    for axis, labels, most in ((panel.yaxis, names, ROWS), (panel.xaxis, [f"{switch:g}" for switch in heat.switches], 12)):
        step = -(-len(labels) // most)
        axis.set_ticks(range(0, len(labels), step), labels[::step])
        axis.set_tick_params(length=0)
    panel.set_xlabel(SWITCH_TIME)
    panel.grid(visible=False)
    if len(heat.switches) <= WRITTEN[0] and len(heat.layers) <= WRITTEN[1]:
        for (row, column), value in np.ndenumerate(heat.values):
            if math.isfinite(value):
                colour = "white" if value < low + 0.6 * (1 - low) else "black"
                panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=6.5)
    return image


def _height(maps: Sequence[HeatMap]) -> float:
    """Inches of a panel, with its title and axis."""
    layers = max(len(heat.layers) for heat in maps)
    return 0.75 + (0.17 * max(layers, 4) if layers <= WRITTEN[1] else 0.14 * min(layers, ROWS))


def _lowest(maps: Sequence[HeatMap]) -> float:
    """Where colours begin: the least value of all panels, rounded down to a tenth."""
    known = [value for heat in maps for value in heat.values[np.isfinite(heat.values)].tolist()]
    return min(math.floor(10 * min(known, default=0.0)) / 10, 0.9)


def _in_words(heat: HeatMap) -> str:
    network = heat.series.run.constrained
    words = {
        "parent": f"the {network} at the switch",
        "control": f"the {network} continued",
        "reference": "itself at the switch",
        "twin": "its twin",
        "sibling": "that of the first seed",
    }
    return words.get(heat.network, heat.network)


def _seen(heat: HeatMap) -> str:
    """The layer that is least alike."""
    if not np.isfinite(heat.values).any():
        return ""
    row, column = divmod(int(np.nanargmin(heat.values)), len(heat.switches))
    layer = "the output" if heat.layers[row] == OUTPUT else heat.layers[row]
    return f"least for {layer}, {heat.values[row, column]:.2f}, for t_w = {heat.switches[column]:g}."


def _found(heat: HeatMap) -> str:
    layers = [row for row, layer in zip(heat.values, heat.layers, strict=True) if layer != OUTPUT]
    means = {
        switch: float(np.mean(known))
        for switch, column in zip(heat.switches, np.array(layers).T, strict=True)
        if len(known := column[np.isfinite(column)])
    }
    if not means:
        return ""
    first, last = min(means), max(means)
    text = f"The layers' representations after training have a mean CKA of {means[first]:.2f} with {_in_words(heat)} for t_w = {first:g}"
    return text + (f" and of {means[last]:.2f} for t_w = {last:g}." if last != first else ".")


def _samples(runs: Sequence[FinishedRun]) -> tuple[str, str]:
    """How many samples, and of which part of the data."""
    branches = [segment for run in runs for noise in (False, True) for segment in run.segments("branch", noise=noise)]
    found = [details for segment in branches if (details := segment.details("cka", "end"))]
    counts, parts = ({str(details[key]) for details in found if key in details} for key in ("samples", "data"))
    named = " and ".join("training" if part == "train" else part for part in sorted(parts))
    return " or ".join(sorted(counts, key=int)), named
