"""What becomes of a branch, by its switch time: figure 3 of d'Ascoli et al. (2019)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.plugin.records import ProbeInfo
from anarch_core.plugin.registry import get_registry
from anarch_core.report.evidence import FinishedRun, Spread, all_series, probed, score, switches
from anarch_core.report.figure import AbstractFigure
from anarch_core.report.figures.style import (
    CONTROL,
    INK,
    SWITCH_TIME,
    TEST_ACCURACY,
    Panel,
    each_run,
    level,
    log_axis,
    points,
    styled,
    time_axis,
)
from anarch_core.report.text import over_seeds, sentences


@attrs.frozen
class Shown:
    """A scalar that a probe's record gives an axis.

    Attributes:
        probe: name of the probe.
        scalar: one of its scalars.
        label: of the axis.
    """

    probe: str
    scalar: str
    label: str

    @property
    def words(self) -> str:
        """The label without its symbols."""
        return re.sub(r"\$[^$]*\$", "", self.label).strip() or f"{self.scalar} of {self.probe}"


class Performance(AbstractFigure):
    """Final accuracy and the scalars that probes' records give an axis, against switch time; probes that did not run have no panel."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """A row of panels per run."""
        all_series(runs)
        measured, _ = _scalars(runs)
        return each_run(runs, [_accuracy, *(_sharpness(shown) for shown in measured)], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Which panels there are and which are not, and where the scalars are largest."""
        measured, missing = _scalars(runs)
        probes = list(dict.fromkeys(shown.probe for shown in missing))
        return sentences(
            "Final test accuracy against switch time (as d'Ascoli et al. 2019, Fig. 3), with the CNN at the end of its training, the "
            "relaxed network from scratch, and the CNN continued from the same moment with the branch's settings.",
            f"Then the {' and the '.join(shown.words for shown in measured)}, at the switch and after training." if measured else "",
            over_seeds(runs, "bars and bands are one standard deviation over {n} seeds"),
            *_largest(runs, measured),
            f"There is no panel for the {' and the '.join(shown.words for shown in missing)}: "
            f"the probe{'s' * (len(probes) > 1)} {' and '.join(probes)} did not run."
            if missing
            else "",
        )


def _scalars(runs: Sequence[FinishedRun]) -> tuple[list[Shown], list[Shown]]:
    """The scalars that have an axis: those that the branches have, and the others."""
    infos = [info for info in get_registry().infos("probe") if isinstance(info, ProbeInfo)]
    every = dict.fromkeys(Shown(info.name, scalar, label) for info in infos for scalar, label in info.axes.items())
    branches = [segment for run in runs for segment in run.segments("branch")]
    measured = [shown for shown in every if probed(branches, shown.probe, "end", shown.scalar) is not None]
    return measured, [shown for shown in every if shown not in measured]


def _largest(runs: Sequence[FinishedRun], measured: Sequence[Shown]) -> list[str]:
    said = []
    for shown in measured:
        for run in runs:
            for series in run.series:
                starts = {switch: probed(group, shown.probe, "start", shown.scalar) for switch, group in series.branches.items()}
                known = {switch: spread.mean for switch, spread in starts.items() if spread is not None}
                if len(known) > 1:
                    most = max(known, key=lambda switch: known[switch])
                    said.append(f"{series.label(runs)}: at the switch the {shown.words} is largest for t_w = {most:g} ({known[most]:.3g}).")
    return said


def _accuracy(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    level(axes, score(run.trunk, "final", "test_accuracy"), label="CNN", colour=INK)
    continued = {switch: group for series in run.series for switch, group in series.continued.items()}
    _line(axes, continued, lambda group: score(group, "final", "test_accuracy"), color=CONTROL, fmt="o:", mfc="none", label="CNN continued")
    for series in run.series:
        colour = colours[series.relaxation]
        name = series.relaxation
        level(axes, score(series.scratch, "final", "test_accuracy"), label=f"{name} from scratch", colour=colour, dashes="--")
        _line(axes, series.branches, lambda group: score(group, "final", "test_accuracy"), color=colour, fmt="x-", mew=1.3, label=name)
    time_axis(axes, switches(run), SWITCH_TIME)
    axes.set_ylabel(f"final {TEST_ACCURACY}")


def _sharpness(shown: Shown) -> Panel:
    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        several = len(colours) > 1
        values: list[float] = []
        for series in run.series:
            for moment, fmt, face in (("start", "o:", "none"), ("end", "x-", None)):
                label = {"start": "at the switch", "end": "after training"}[moment]
                style = {"color": colours[series.relaxation], "fmt": fmt, "mfc": face}
                found = {switch: probed(group, shown.probe, moment, shown.scalar) for switch, group in series.branches.items()}
                points(axes, list(found), list(found.values()), **style, label=f"{series.relaxation} {label}" if several else label)
                values += [spread.mean for spread in found.values() if spread is not None]
        controls = {switch: group for series in run.series for switch, group in series.continued.items()}
        found = {switch: probed(group, shown.probe, "end", shown.scalar) for switch, group in controls.items()}
        points(axes, list(found), list(found.values()), color=CONTROL, fmt="o:", mfc="none", label="CNN continued")
        log_axis(axes, values)
        time_axis(axes, switches(run), SWITCH_TIME)
        axes.set_ylabel(shown.label)

    return draw


def _line(axes: Axes, groups: Any, value: Callable[[Iterable[SegmentResult]], Spread | None], **style: Any) -> None:
    points(axes, list(groups), [value(group) for group in groups.values()], **style)
