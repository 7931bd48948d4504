"""The path into the relaxed network: figure 12 of d'Ascoli et al. (2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from anarch_core.report import (
    CONTROL,
    AbstractFigure,
    FinishedRun,
    SegmentResult,
    Series,
    Spread,
    constrained,
    equal_axes,
    grid,
    legend,
    names,
    over_seeds,
    pictured,
    points,
    sentences,
    styled,
)

METHODS = {
    "linear": ("#d55e00", "o-", "linear"),
    "curvilinear": ("#e69f00", "v-", "norm-preserving"),
    "string": ("#0072b2", "s-", "string"),
    "band": ("#cc79a7", "D-", "nudged elastic band"),
    "logits": ("#009e73", "^-", "logits mixed"),
    "probabilities": ("#56b4e9", "x-", "probabilities mixed"),
}
TRAINING_LOSS, TEST_SCORE = 1, 4
"""Columns of a profile that are drawn: it holds position, training loss and score, test loss and score."""


class Paths(AbstractFigure):
    """On the way into the relaxed network."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Training loss and test score along paths to the trained relaxed network (figure 12).

        For four switch times, or two of every relaxation.

        Raises:
            NothingToDrawError: the probe interpolation was not run.
        """
        rows = pictured(runs, "interpolation")
        figure, axes = grid(len(rows), 2, narrow=narrow, height=1.75)
        for shown, row in zip(rows, axes, strict=True):
            run = shown.series.run
            labels = {TRAINING_LOSS: run.loss_label(), TEST_SCORE: run.score_label()}
            for panel, (column, label) in zip(row, labels.items(), strict=True):
                for method, tables in shown.arrays.items():
                    colour, fmt, name = METHODS.get(method, (CONTROL, ".-", method))
                    places = [float(np.mean([table[index, 0] for table in tables])) for index in range(len(tables[0]))]
                    spreads = [Spread.of(_finite(table[index, column]) for table in tables) for index in range(len(tables[0]))]
                    points(panel, places, spreads, color=colour, fmt=fmt, markersize=3, linewidth=1.0, label=name)
                panel.set_ylabel(label)
                panel.set_title(shown.title, loc="left")
                panel.set_xlabel(r"position on the path $\alpha$")
        equal_axes(figure.axes)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Where the paths begin, and whether there is a barrier on the straight one."""
        begin = {
            "projection": "the trained network's own projection onto the constraints",
            "parent": f"the {constrained(runs)} it was lifted from",
            "reference": "the network at the switch",
        }.get(_origin(runs) or "", "the network it is compared with")
        seen = [f"{series.label(runs)}: {told}." for run in runs for series in run.series if (told := _straight(series))]
        return sentences(
            f"Training loss and test {names(runs)} on the way from {begin} (α = 0) to the trained relaxed network (α = 1) (as "
            "d'Ascoli et al. 2019, Fig. 12).",
            "For curved paths α is the length travelled.",
            "Batch-norm statistics are estimated afresh at every point, of the ends as well." if _estimated_afresh(runs) else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )


def _straight(series: Series) -> str:
    """Whether there is a barrier on the straight path, and where none can be told; empty where it was not measured."""
    found = {
        switch: [segment.scalars("interpolation", "end")["linear_barrier"] for segment in group if _has_straight(segment)]
        for switch, group in series.branches.items()
    }
    heights = [spread.mean for barriers in found.values() if (spread := Spread.of(barriers)) is not None]
    unknown = [f"{switch:g}" for switch, barriers in found.items() if None in barriers]
    open_end = (
        f"the loss on the straight path is not finite for t_w = {', '.join(unknown)}, where no barrier can be told" if unknown else ""
    )
    if not heights:
        return open_end
    if max(heights) > 1e-6:
        told = f"has a barrier of up to {max(heights):.2g} {series.run.results.objective.loss_unit}".rstrip()
    else:
        told = "has no barrier at any other switch time" if unknown else "has no barrier at any switch time"
    return f"the straight path {told}" + (f"; {open_end}" if unknown else "")


def _has_straight(segment: SegmentResult) -> bool:
    return "linear_barrier" in segment.scalars("interpolation", "end")


def _estimated_afresh(runs: Sequence[FinishedRun]) -> bool:
    """Whether there were batch-norm statistics that differ from those of training."""
    found = [segment.details("interpolation", "end") for run in runs for segment in run.segments("branch")]
    return any(method.get("statistics_shift", 0) != 0 for details in found if details for method in details.get("methods", {}).values())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _origin(runs: Sequence[FinishedRun]) -> str | None:
    """Where the paths begin: the option of the probe."""
    for run in runs:
        for segment in run.segments("branch"):
            found = segment.details("interpolation", "end")
            if found:
                return str(found["origin"])
    return None
