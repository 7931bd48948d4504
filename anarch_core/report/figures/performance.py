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
from anarch_core.report.evidence import FinishedRun, all_series, probed, score, switches, why_missing
from anarch_core.report.figure import AbstractFigure
from anarch_core.report.figures.quantity import quantity
from anarch_core.report.figures.style import (
    INK,
    MOMENTS,
    SWITCH_TIME,
    WHEN,
    control,
    each_run,
    level,
    points,
    styled,
    time_axis,
)
from anarch_core.report.spread import Spread
from anarch_core.report.text import constrained, coordinates, names, over_seeds, sentences


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
    """Final score and the scalars that probes' records give an axis, against switch time; probes that did not run have no panel."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """A row of panels per run."""
        all_series(runs)
        measured, _ = _scalars(runs)
        return each_run(runs, [_score, *(quantity(shown.probe, shown.scalar, shown.label) for shown in measured)], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Which panels there are and which are not, and where the scalars are largest."""
        measured, missing = _scalars(runs)
        network = constrained(runs)
        shared = [shown.probe for shown in measured if shown.scalar.endswith("_shared")]
        return sentences(
            f"Final test {names(runs)} against switch time (as d'Ascoli et al. 2019, Fig. 3), with the {network} at the end of its "
            f"training, the relaxed network from scratch, and the {network} continued from the same moment with the branch's settings.",
            f"Then the {' and the '.join(shown.words for shown in measured)}, at the switch and after training." if measured else "",
            coordinates(runs, shared) if shared else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds, those of horizontal lines at the right end"),
            *_largest(runs, measured),
            *(f"There is no panel for the {shown.words}: the probe {shown.probe} {_why(runs, shown)}." for shown in missing),
        )


def _scalars(runs: Sequence[FinishedRun]) -> tuple[list[Shown], list[Shown]]:
    """The scalars that have an axis: those that the branches have, and the others."""
    infos = [info for info in get_registry().infos("probe") if isinstance(info, ProbeInfo)]
    every = dict.fromkeys(Shown(info.name, scalar, label) for info in infos for scalar, label in info.axes.items())
    branches = [segment for run in runs for segment in run.segments("branch")]
    measured = [shown for shown in every if probed(branches, shown.probe, "end", shown.scalar) is not None]
    return measured, [shown for shown in every if shown not in measured]


def _why(runs: Sequence[FinishedRun], shown: Shown) -> str:
    branches = [segment for run in runs for segment in run.segments("branch")]
    if any("end" in segment.probes.get(shown.probe, {}) for segment in branches):
        return f"did not measure {shown.scalar}"
    return why_missing(branches, shown.probe).rstrip(".")


def _largest(runs: Sequence[FinishedRun], measured: Sequence[Shown]) -> list[str]:
    """Where each scalar is largest at the switch; of networks that agree in it, as all do in coordinates that compare, one sentence."""
    said = []
    for shown in measured:
        of_whom: dict[str, list[str]] = {}
        for series in (series for run in runs for series in run.series):
            starts = {switch: probed(group, shown.probe, "start", shown.scalar) for switch, group in series.branches.items()}
            known = {switch: spread.mean for switch, spread in starts.items() if spread is not None}
            if len(known) > 1:
                most = max(known, key=lambda switch: known[switch])
                of_whom.setdefault(f"t_w = {most:g} ({known[most]:.3g})", []).append(series.label(runs))
        said += [f"{', '.join(names)}: at the switch the {shown.words} is largest for {where}." for where, names in of_whom.items()]
    return said


def _score(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    level(axes, score(run.trunk, "final", run.test_score), label=run.constrained, colour=INK)
    continued = {switch: group for series in run.series for switch, group in series.continued.items()}
    _line(axes, continued, lambda group: score(group, "final", run.test_score), **control(run))
    for series in run.series:
        colour = colours[series.relaxation]
        name = series.name
        level(axes, score(series.scratch, "final", run.test_score), label=f"{name} from scratch", colour=colour, dashes="--")
        _line(
            axes,
            series.branches,
            lambda group: score(group, "final", run.test_score),
            color=colour,
            **MOMENTS["end"],
            label=f"{name} {WHEN['end']}",
        )
    time_axis(axes, switches(run), SWITCH_TIME)
    axes.set_ylabel(f"final {run.score_label()}")


def _line(axes: Axes, groups: Any, value: Callable[[Iterable[SegmentResult]], Spread | None], **style: Any) -> None:
    points(axes, list(groups), [value(group) for group in groups.values()], **style)
