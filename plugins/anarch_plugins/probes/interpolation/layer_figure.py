"""The barrier of each layer: which layers of two networks can be averaged, and which cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    SegmentResult,
    Series,
    Spread,
    Table,
    all_series,
    equal_axes,
    grid,
    legend,
    over_seeds,
    points,
    require_probes,
    sentences,
    some,
    styled,
)
from anarch_plugins.probes.interpolation.figure import begin, estimated_afresh, measured

SHOWN = {
    "averaged": ("#d55e00", "o-", "averaged, training"),
    "test": ("#e69f00", "s-", "averaged, test"),
    "barrier": ("#0072b2", "^-", "barrier of the layer's path, training"),
}
MOST = 30
"""Layers whose names have room below a panel."""


@attrs.frozen(kw_only=True)
class Shown:
    """One switch time of one relaxation.

    Attributes:
        title: which one.
        layers: by name, in the order of the network, each of :data:`SHOWN` over seeds.
    """

    title: str
    layers: Mapping[str, Mapping[str, Spread | None]]


class LayerPaths(AbstractFigure):
    """Layer by layer."""

    heading = "Layer by layer"

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Loss with one layer averaged above that of the two networks, and the barrier on its path, against the layer.

        For four switch times, or two of every relaxation.

        Raises:
            NothingToDrawError: the probe interpolation was not run, or not for every layer.
        """
        require_probes(runs, "interpolation")
        every = _every(runs)
        if not every:
            msg = "no paths of single layers were walked; run again with --interpolation-layer-wise"
            raise NothingToDrawError(msg)
        figure, axes = grid(len(every), 1, narrow=narrow, height=2.6)
        unit = f" ({runs[0].results.objective.loss_unit})" if runs[0].results.objective.loss_unit else ""
        for shown, [panel] in zip(every, axes, strict=True):
            for name, (colour, fmt, label) in SHOWN.items():
                spreads = [numbers[name] for numbers in shown.layers.values()]
                points(panel, range(len(spreads)), spreads, color=colour, fmt=fmt, markersize=3.5, linewidth=0.8, label=label)
            panel.set_ylabel(f"loss above that of the networks{unit}")
            panel.set_title(shown.title, loc="left")
            _name_layers(panel, list(shown.layers))
        equal_axes(figure.axes)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What is averaged, and for which layer that costs most."""
        rest = next((details["layer_wise"]["rest"] for details in measured(runs) if "layer_wise" in details), "origin")
        home = {"origin": "first", "network": "second"}[rest]
        seen = []
        for shown in _every(runs):
            known = {layer: spread.mean for layer, numbers in shown.layers.items() if (spread := numbers["averaged"]) is not None}
            if known:
                worst = max(known, key=lambda layer: known[layer])
                seen.append(f"{shown.title.replace('$', '')}: it costs most in {worst}, {known[worst]:.2g}.")
        return sentences(
            f"Between two networks, {begin(runs)} and the trained relaxed network: loss with one layer averaged and all others of the "
            f"{home} one, less the mean loss of the two (Adilova et al. 2024); and the barrier on the straight path of that layer alone, "
            "from the one's to the other's, over the straight line between the losses of the ends of this path.",
            "Batch-norm statistics are estimated afresh at every point." if estimated_afresh(runs) else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )

    def tables(self, run: FinishedRun) -> list[Table]:
        """The numbers of every switch time that is drawn."""
        return [
            Table(
                caption=f"one layer alone, {shown.title.replace('$', '')}",
                headings=["layer", *(label for _, _, label in SHOWN.values())],
                rows=[[layer, *(_cell(numbers[name]) for name in SHOWN)] for layer, numbers in shown.layers.items()],
            )
            for shown in _every([run])
        ]


def _every(runs: Sequence[FinishedRun]) -> list[Shown]:
    every = all_series(runs)
    several = len({(series.run.label, series.relaxation) for series in every}) > 1
    return [
        Shown(title=f"{series.label(runs) + ', ' if several else ''}$t_w$ = {switch:g}", layers=layers)
        for series in every
        for switch in some(list(series.branches), 4 if len(every) == 1 else 2)
        if (layers := _layers(series, switch))
    ]


def _layers(series: Series, switch: float) -> dict[str, dict[str, Spread | None]]:
    """By name, over seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for segment in series.branches[switch]:
        for layer in _in_order(segment):
            found.setdefault(layer["layer"] or "the network", []).append(layer)
    return {
        name: {
            "averaged": Spread.of(layer["averaged"]["train"] for layer in layers),
            "test": Spread.of(layer["averaged"]["test"] for layer in layers),
            "barrier": Spread.of(layer["barriers"]["train"]["chord"] for layer in layers),
        }
        for name, layers in found.items()
    }


def _in_order(segment: SegmentResult) -> Iterable[Mapping[str, Any]]:
    layers: Iterable[Mapping[str, Any]] = segment.details("interpolation", "end").get("layer_wise", {}).get("layers", ())
    return layers


def _name_layers(panel: Axes, names: Sequence[str]) -> None:
    every = math.ceil(len(names) / MOST)
    panel.set_xticks(range(0, len(names), every), names[::every], rotation=90 if len(names) > 6 else 0)
    panel.set_xlabel("layer")


def _cell(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.mean:.4g}"
