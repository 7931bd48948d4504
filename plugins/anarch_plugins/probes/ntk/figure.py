"""Alignment of the tangent kernel with the labels, before and after the switch, in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    INK,
    MOMENTS,
    SWITCH_TIME,
    WHEN,
    AbstractFigure,
    FinishedRun,
    SegmentResult,
    Series,
    Spread,
    all_series,
    constrained,
    control,
    equal_axes,
    grid,
    legend,
    over_seeds,
    points,
    probed,
    require_probes,
    sentences,
    styled,
    time_axis,
)

PARTS: Mapping[str, tuple[str, str]] = {
    "": ("#000000", "all directions"),
    "_shared": ("#0072b2", "shared"),
    "_unshared": ("#009e73", "unshared"),
    "_off_local": ("#d55e00", "off-local"),
}
"""Ending of a scalar's name -> colour, and what it is called."""


class Ntk(AbstractFigure):
    """The tangent kernel and the labels."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Alignment and share of the trace by part of parameter space, at the switch and after training, against switch time.

        Raises:
            NothingToDrawError: the probe ntk was not run.
        """
        require_probes(runs, "ntk")
        every = all_series(runs)
        figure, axes = grid(len(every), 2, narrow=narrow)
        for series, (left, right) in zip(every, axes, strict=True):
            _alignment(left, series)
            _lines(right, series, "trace", list(PARTS)[1:])
            left.set_ylabel("alignment with the labels")
            right.set_ylabel("share of the trace")
            for panel in (left, right):
                time_axis(panel, list(series.branches), SWITCH_TIME)
                if len(every) > 1:
                    panel.set_title(series.label(runs), loc="left")
        equal_axes([panel for row in axes for panel in row])
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What is aligned with what, in which coordinates, and by how much training changed it."""
        return sentences(
            "Centred alignment (0 to 1, no unit) of the neural tangent kernel on training samples with the kernel of their labels: of the "
            "whole kernel, and of what shared, unshared and off-local directions contribute to it, in coordinates that a network and its "
            "relaxations have in common.",
            "Right: the share of each in the trace of the kernel.",
            f"Hollow: {WHEN['start']}, where the shared kernel is that of the {constrained(runs)} that is relaxed; filled: {WHEN['end']}.",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *(f"{series.label(runs)}: {seen}" for run in runs for series in run.series if (seen := _seen(series))),
        )

    def findings(self, series: Series) -> list[str]:
        """The alignment before the switch, at it and after training, for the last switch."""
        seen = _seen(series)
        return [seen[0].upper() + seen[1:]] if seen else []


def _alignment(axes: Axes, series: Series) -> None:
    _lines(axes, series, "alignment", list(PARTS))
    before = [probed(group, "ntk", "end", "alignment_parent") for group in series.branches.values()]
    if any(before):  # else its coordinates do not compare
        label = f"{series.run.constrained} before the switch"
        points(axes, list(series.branches), before, color=INK, fmt="x:", markersize=4, linewidth=0.9, label=label)
        style = control(series.run)
        points(axes, list(series.continued), _spreads(series.continued, "end", "alignment"), **style)


def _lines(axes: Axes, series: Series, scalar: str, endings: Sequence[str]) -> None:
    for ending in endings:
        colour, label = PARTS[ending]
        for moment, style in MOMENTS.items():
            told = {"label": label} if moment == "end" else {}
            points(axes, list(series.branches), _spreads(series.branches, moment, scalar + ending), color=colour, **style, **told)


def _spreads(branches: Mapping[float, Sequence[SegmentResult]], moment: str, scalar: str) -> list[Spread | None]:
    return [probed(group, "ntk", moment, scalar) for group in branches.values()]


def _seen(series: Series) -> str:
    """Of the last switch of which it is known."""
    for switch, group in reversed(list(series.branches.items())):
        start, end = (probed(group, "ntk", moment, "alignment") for moment in MOMENTS)
        if start is not None and end is not None:
            before = probed(group, "ntk", "end", "alignment_parent")
            said = f"the kernel's alignment with the labels is {start.mean:.3f} at the switch at t_w = {switch:g}"
            said += f" ({before.mean:.3f} before it)" if before is not None else ""
            return f"{said} and {end.mean:.3f} after training."
    return ""
