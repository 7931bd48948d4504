"""The score of a network on its way back to the constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from anarch_core.report import (
    AbstractFigure,
    FinishedRun,
    Series,
    Spread,
    difference,
    equal_axes,
    grid,
    legend,
    names,
    over_seeds,
    pictured,
    points,
    probed,
    sentences,
    styled,
)

SHOWN = {
    "both": ("#0072b2", "o-", "unshared and off-local"),
    "off_local": ("#d55e00", "D-", "off-local alone"),
    "unshared": ("#009e73", "s-", "unshared alone"),
}
SCORE = 2
"""Column of a table that is drawn: it holds s, the loss, and the scores, the first of which runs are judged by."""


class SoftProjection(AbstractFigure):
    """On the way back to the constraints."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Score against s, the number by which parts are scaled, for four switch times, or two of every relaxation.

        Raises:
            NothingToDrawError: the probe soft-projection was not run.
        """
        panels = pictured(runs, "soft-projection")
        figure, axes = grid(-(-len(panels) // 2), min(len(panels), 2), narrow=narrow, height=1.75)
        cells = [panel for row in axes for panel in row]
        for panel in cells[len(panels) :]:
            panel.set_axis_off()
        for shown, panel in zip(panels, cells, strict=False):
            for scaled, (colour, fmt, label) in SHOWN.items():
                found = shown.arrays.get(scaled, [])
                places = [float(row[0]) for row in found[0]] if found else []
                spreads = [Spread.of(_finite(table[index][SCORE]) for table in found) for index in range(len(places))]
                points(panel, places, spreads, color=colour, fmt=fmt, markersize=3, linewidth=1.0, label=label)
            run = shown.series.run
            panel.set_ylabel(run.score_label(run.evaluated_on("soft-projection")))
            panel.set_title(shown.title, loc="left")
            panel.set_xlabel("scale $s$ of the parts")
        equal_axes([panel for _, panel in zip(panels, cells, strict=False)])
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What is scaled, and what the whole way back costs."""
        seen = []
        for run in runs:
            for series in run.series:
                lost = {
                    switch: projected.mean - full.mean
                    for switch in series.branches
                    if (full := _score(series, switch, "full")) is not None and (projected := _score(series, switch, "both")) is not None
                }
                if lost:
                    most = (min if run.metric.higher_is_better else max)(lost, key=lambda switch: lost[switch])
                    change = difference(lost[most], run.metric)
                    worst = " at worst" if len(lost) > 1 else ""
                    seen.append(f"{series.label(runs)}: to be projected changes it by {change}{worst}, for t_w = {most:g}.")
        data = " or ".join(dict.fromkeys(run.evaluated_on("soft-projection") for run in runs))
        return sentences(
            f"{data.capitalize()} {names(runs)} of the trained relaxed network with the parts of its weights that the constraints exclude "
            "scaled by s: from the network (s = 1) to its projection (s = 0), or with one of the parts scaled alone.",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )


def _score(series: Series, switch: float, name: str) -> Spread | None:
    return probed(series.branches[switch], "soft-projection", "end", f"{series.run.metric.name}_{name}")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
