"""The path into the relaxed network: figure 12 of d'Ascoli et al. (2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from anarch_core.report import (
    INK,
    AbstractFigure,
    FinishedRun,
    Pictured,
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
    "bezier": (INK, "P-", "Bezier curve"),
    "polygon": (INK, "X--", "polygonal chain"),
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
                for method, tables in _profiles(shown).items():
                    colour, fmt, name = METHODS[method]
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
        seen = [f"{series.label(runs)}: {told}." for run in runs for series in run.series if (told := _straight(series))]
        return sentences(
            f"Training loss and test {names(runs)} on the way from {begin(runs)} (α = 0) to the trained relaxed network (α = 1) (as "
            "d'Ascoli et al. 2019, Fig. 12).",
            _moving(runs),
            "For curved paths α is the length travelled.",
            "Bezier curves and polygonal chains have one bend, trained for a low mean loss (Garipov et al. 2018)." if _bent(runs) else "",
            "Batch-norm statistics are estimated afresh at every point, of the ends as well." if estimated_afresh(runs) else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )


def _profiles(shown: Pictured) -> Mapping[str, Sequence[np.ndarray[Any, Any]]]:
    """Those of whole paths, by method; profiles of single layers lie beside them."""
    return {name: shown.arrays[name] for name in METHODS if name in shown.arrays}


def _moving(runs: Sequence[FinishedRun]) -> str:
    """Which layers moved, where these were not all."""
    details = next(measured(runs), {})
    if not details.get("layers"):
        return ""
    home = "network that the path begins at" if details["rest"] == "origin" else "trained network"
    return f"Only {', '.join(details['layers'])} move, and all else is that of the {home}."


def _bent(runs: Sequence[FinishedRun]) -> bool:
    return any({"bezier", "polygon"} & details.get("methods", {}).keys() for details in measured(runs))


def measured(runs: Sequence[FinishedRun]) -> Iterator[Mapping[str, Any]]:
    """Details of the branches that were measured."""
    for run in runs:
        for segment in run.segments("branch"):
            if found := segment.details("interpolation", "end"):
                yield found


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


def estimated_afresh(runs: Sequence[FinishedRun]) -> bool:
    """Whether there were batch-norm statistics that differ from those of training."""
    return any(method.get("statistics_shift", 0) != 0 for found in measured(runs) for method in found.get("methods", {}).values())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def begin(runs: Sequence[FinishedRun]) -> str:
    """Where the paths begin, in words."""
    origin = next(measured(runs), {}).get("origin", "")
    return {
        "projection": "the trained network's own projection onto the constraints",
        "parent": f"the {constrained(runs)} it was lifted from",
        "reference": "the network at the switch",
        "control": f"the {constrained(runs)} trained on as long",
    }.get(origin, "the network it is compared with")
