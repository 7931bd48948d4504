"""Barriers between seeds, as trained and with channels matched, by switch time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    INK,
    AbstractFigure,
    FinishedRun,
    Panel,
    SegmentResult,
    Series,
    Spread,
    constrained,
    each_run,
    over_seeds,
    points,
    probed,
    quantity,
    require_probes,
    sentences,
    styled,
)

WHEN = {"before": "as trained", "after": "channels matched"}
TRAINING_LOSS = 1
"""Column of a profile that is drawn: it holds position, training loss and score, test loss and score."""


class AlignmentFigure(AbstractFigure):
    """How high the loss is between a network and that of another seed."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Barrier against switch time, as trained and with channels matched, and the training loss on the way for the last switch.

        Raises:
            NothingToDrawError: the probe alignment was not run.
        """
        require_probes(runs, "alignment")
        return each_run(runs, [_barrier("before"), _barrier("after"), _profiles], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What the barrier is of, and how much of it is a matter of permutations."""
        return sentences(
            "Barrier in training loss on the straight line between the network of each seed and that of the first, highest excess over the "
            "chord between the ends.",
            "Left: as trained. Middle: the channels of one network are permuted to match those of the other (weight matching, Ainsworth et "
            "al. 2022), which changes nothing that it computes.",
            f"Right: the training loss on the way for the last switch time and for the {constrained(runs)} (black), as trained (hollow, "
            "dotted) and matched (filled).",
            "Batch-norm statistics are estimated afresh at every point, of the ends as well." if _estimated_afresh(runs) else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} pairs of seeds, those of horizontal lines at the right end", paired=True),
            *(f"{series.label(runs)}: {seen}." for run in runs for series in run.series if (seen := _seen(series))),
        )

    def findings(self, series: Series) -> list[str]:
        """The barrier before and after, for the last switch."""
        seen = _seen(series)
        return [f"{seen[0].upper()}{seen[1:]}."] if seen else []


def _barrier(when: str) -> Panel:
    draw = quantity("alignment", f"barrier_{when}", "barrier", scale="linear")

    def panel(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        draw(axes, run, colours)
        unit = run.results.objective.loss_unit
        axes.set_ylabel(f"barrier in training loss ({unit})" if unit else "barrier in training loss")
        axes.set_title(WHEN[when], loc="right")

    return panel


def _profiles(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    measured = {series.relaxation: _last(series) for series in run.series}
    groups: list[tuple[Sequence[SegmentResult], str]] = [(run.trunk, INK)]
    for series in run.series:
        switch = measured[series.relaxation]
        groups += [] if switch is None else [(series.branches[switch], colours[series.relaxation])]
    for segments, colour in groups:
        for when, style in (("before", {"fmt": "o:", "mfc": "none"}), ("after", {"fmt": "o-"})):
            tables = [run.tensors(segment, "alignment", "end").get(when) for segment in segments if _barrier_of(segment, when) is not None]
            found = [table for table in tables if table is not None]
            if found:
                places = [float(np.mean([table[index, 0] for table in found])) for index in range(len(found[0]))]
                spreads = [Spread.of(float(table[index, TRAINING_LOSS]) for table in found) for index in range(len(found[0]))]
                points(axes, places, spreads, color=colour, markersize=3, linewidth=1.0, **style)
    axes.set_ylabel(run.loss_label())
    axes.set_xlabel(r"position on the line $\alpha$")
    switches = {f"{switch:g}" for switch in measured.values() if switch is not None}
    if switches:
        axes.set_title(f"$t_w$ = {', '.join(sorted(switches))}", loc="right")


def _barrier_of(segment: SegmentResult, when: str) -> float | None:
    return segment.scalars("alignment", "end").get(f"barrier_{when}")


def _last(series: Series) -> float | None:
    """The last switch time of which there is a barrier."""
    return max((switch for switch, group in series.branches.items() if probed(group, "alignment", "end", "barrier_after")), default=None)


def _seen(series: Series) -> str:
    switch = _last(series)
    if switch is None:
        return ""
    before, after = (probed(series.branches[switch], "alignment", "end", f"barrier_{when}") for when in WHEN)
    if before is None or after is None:
        return ""
    unit = f" {unit}" if (unit := series.run.results.objective.loss_unit) else ""
    told = f"{before.mean:.3g}{unit} as trained and {after.mean:.3g}{unit} with channels matched"
    return f"for t_w = {switch:g} the barrier between seeds is {told}"


def _estimated_afresh(runs: Sequence[FinishedRun]) -> bool:
    """Whether there were batch-norm statistics that differ from those of training."""
    found = [segment.details("alignment", "end") for run in runs for segment in run.segments("branch")]
    return any(path["statistics_shift"] != 0 for details in found if details for path in details.get("paths", {}).values())
