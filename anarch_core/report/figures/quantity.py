"""A scalar of a probe against switch time: at the switch and after training, with the CNN and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, probed, switches
from anarch_core.report.figures.style import CONTINUED, INK, MOMENTS, SWITCH_TIME, WHEN, Panel, level, log_axis, points, time_axis

Line = tuple[Mapping[float, Sequence[SegmentResult]], str, Mapping[str, Any]]


def quantity(probe: str, scalar: str, label: str, *, scale: Literal["fitting", "linear", "logarithmic"] = "fitting") -> Panel:
    """A panel for :func:`anarch_core.report.each_run`; a scalar that compares between networks.

    Args:
        probe: name of the probe.
        scalar: one of its scalars.
        label: of the axis.
        scale: of the axis; fitting is a logarithmic one where positive values span more than a factor of ten.
    """

    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        values = _levels(axes, run, colours, probe, scalar)
        for groups, moment, style in _lines(run, colours):
            spreads = [probed(group, probe, moment, scalar) for group in groups.values()]
            points(axes, list(groups), spreads, **style)
            values += [spread.mean for spread in spreads if spread is not None]
        if scale != "linear":
            log_axis(axes, values, always=scale == "logarithmic")
        time_axis(axes, switches(run), SWITCH_TIME)
        axes.set_ylabel(label)

    return draw


def _levels(axes: Axes, run: FinishedRun, colours: Mapping[str, str], probe: str, scalar: str) -> list[float]:
    found = {"CNN": (run.trunk, INK, "-")}
    found |= {f"{series.name} from scratch": (series.scratch, colours[series.relaxation], "--") for series in run.series}
    values = []
    for label, (segments, colour, dashes) in found.items():
        spread = probed(segments, probe, "end", scalar)
        level(axes, spread, label=label, colour=colour, dashes=dashes)
        values += [] if spread is None else [spread.mean]
    return values


def _lines(run: FinishedRun, colours: Mapping[str, str]) -> list[Line]:
    lines: list[Line] = []
    for index, series in enumerate(run.series):
        for moment, style in MOMENTS.items():
            # Where a CNN and its relaxations are equal at the switch, rings lie around each other.
            size = {"markersize": 4.5 + 2.5 * (len(run.series) - 1 - index)} if moment == "start" else {}
            label = f"{series.name} {WHEN[moment]}"
            lines.append((series.branches, moment, {"color": colours[series.relaxation], "label": label, **style, **size}))
    return [*lines, ({switch: group for series in run.series for switch, group in series.continued.items()}, "end", CONTINUED)]
