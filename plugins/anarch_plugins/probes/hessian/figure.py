"""The largest eigenvalues along the training of branches, by part of parameter space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    SegmentResult,
    Series,
    all_series,
    constrained,
    control,
    course,
    equal_axes,
    grid,
    legend,
    log_axis,
    measured_between,
    over_seeds,
    points,
    require_probes,
    sentences,
    some,
    styled,
    time_axis,
)

PARTS: Mapping[str, tuple[str, str]] = {
    "shared": ("#0072b2", "shared"),
    "unshared": ("#009e73", "unshared"),
    "off_local": ("#d55e00", "off-local"),
}
"""Ending of a scalar's name -> colour, and what the directions are called."""

ROWS: Mapping[str, tuple[str, str]] = {
    "hessian": ("lambda_max_", r"$\lambda_\mathrm{max}$"),
    "gradient": ("norm_", r"$|\nabla\mathcal{L}|$"),
}
"""Probe -> how the names of its scalars begin, and the label of their axis."""


MOST_COLUMNS = 4
"""Switch times side by side; more of them are below one another."""


class SpectrumTime(AbstractFigure):
    """Curvature along the training."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """λ_max and, where it was measured, the norm of the gradient, by part, against epochs since the switch, for a few switch times.

        Raises:
            NothingToDrawError: the probe hessian was not run, or at the ends of segments only.
        """
        require_probes(runs, "hessian")
        chosen, several = _chosen(runs), len(all_series(runs)) > 1
        probes = [probe for probe in ROWS if any(measured_between(series.branches[switch], probe) for series, switch in chosen)]
        upright = len(chosen) > MOST_COLUMNS
        shape = (len(chosen), len(probes)) if upright else (len(probes), len(chosen))
        figure, axes = grid(*shape, narrow=narrow, height=1.9)
        for probe, row in zip(probes, zip(*axes, strict=True) if upright else axes, strict=True):
            for (series, switch), panel in zip(chosen, row, strict=True):
                _courses(panel, series, switch, probe)
                panel.set_ylabel(ROWS[probe][1])
                panel.set_title(f"{series.label(runs) + ', ' if several else ''}$t_w$ = {switch:g}", loc="left")
        equal_axes([panel for row in axes for panel in row])
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What is drawn in which coordinates, and how to measure what is missing."""
        chosen = _chosen(runs)
        units = " or ".join(dict.fromkeys(run.results.objective.loss_unit for run in runs if run.results.objective.loss_unit))
        missing = [
            name
            for ending, (_, name) in PARTS.items()
            if not any(course(series.branches[switch], "hessian", f"lambda_max_{ending}") for series, switch in chosen)
        ]
        gradient = any(measured_between(series.branches[switch], "gradient") for series, switch in chosen)
        return sentences(
            f"Largest eigenvalue of the Hessian of the training loss{f' ({units})' if units else ''} along shared, unshared and off-local "
            "directions, in coordinates that a network and its relaxations have in common, from the switch (hollow) to the end.",
            f"{'Right' if len(chosen) > MOST_COLUMNS else 'Below'}: the norm of the gradient, likewise." if gradient else "",
            f"Squares: the {constrained(runs)} that went on without a switch, whose directions are all shared."
            if any(_control(series, switch) for series, switch in chosen)
            else "",
            f"Not measured: {' and '.join(missing)} directions; add --hessian-subspaces shared,unshared,off-local." if missing else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
        )


def _chosen(runs: Sequence[FinishedRun]) -> list[tuple[Series, float]]:
    """Four switch times, or two of every relaxation where there are several, of branches that were measured on the way."""
    every = all_series(runs)
    found = [
        (series, switch)
        for series in every
        for switch in some(
            [switch for switch, group in series.branches.items() if measured_between(group, "hessian")], 4 if len(every) == 1 else 2
        )
    ]
    if not found:
        msg = "the probe hessian measured no branch between its start and its end; run again with --probe hessian --probe-at 1,5"
        raise NothingToDrawError(msg)
    return found


def _courses(axes: Axes, series: Series, switch: float, probe: str) -> None:
    prefix, drawn, places = ROWS[probe][0], [], [0.0]
    branches = series.branches[switch]
    lines: list[tuple[Sequence[SegmentResult], str, Mapping[str, Any]]] = [
        (branches, ending, {"color": colour, "label": label, "fmt": "o-"}) for ending, (colour, label) in PARTS.items()
    ]
    lines.append((_control(series, switch), "shared", control(series.run)))
    for segments, ending, style in lines:
        # No part of a network has the largest eigenvalue 0, unless there are no such directions.
        found = [(epoch, spread) for epoch, spread in course(segments, probe, prefix + ending) if spread.mean > 0]
        points(axes, [epoch for epoch, _ in found], [spread for _, spread in found], **{**style, "markersize": 3.5, "zorder": 2})
        if found and found[0][0] == 0:
            marker = str(style["fmt"])[0]
            axes.plot(0, found[0][1].mean, marker, mfc="white", mec=style["color"], markersize=4.5, zorder=3)
        drawn += [spread.mean for _, spread in found]
        places += [epoch for epoch, _ in found]
    log_axis(axes, drawn, always=True)
    time_axis(axes, places, "epochs since $t_w$")
    if len({*places}) <= 6:
        axes.set_xticks(sorted({*places}))


def _control(series: Series, switch: float) -> Sequence[SegmentResult]:
    """The segments that went on without it, where their coordinates compare."""
    branches = series.branches[switch]
    if any("incomparable" in segment.details(probe, "end") for segment in branches for probe in ROWS):
        return ()
    return series.continued.get(switch, ())
