"""A scalar of a probe against switch time: at the switch and after training, with the constrained network and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, incomparable, probed, switches
from anarch_core.report.figures.style import INK, MOMENTS, SWITCH_TIME, WHEN, Panel, control, level, log_axis, points, time_axis

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
        for groups, moment, style in _lines(run, colours, probe, scalar):
            spreads = [probed(group, probe, moment, scalar) for group in groups.values()]
            points(axes, list(groups), spreads, **style)
            values += [spread.mean for spread in spreads if spread is not None]
        if scale != "linear":
            log_axis(axes, values, always=scale == "logarithmic")
        time_axis(axes, switches(run), SWITCH_TIME)
        axes.set_ylabel(label)

    return draw


def _levels(axes: Axes, run: FinishedRun, colours: Mapping[str, str], probe: str, scalar: str) -> list[float]:
    found = {run.constrained: (run.trunk, INK, "-")} if _comparable(run, probe, scalar) else {}
    found |= {f"{series.name} from scratch": (series.scratch, colours[series.relaxation], "--") for series in run.series}
    values = []
    for label, (segments, colour, dashes) in found.items():
        spread = probed(segments, probe, "end", scalar)
        level(axes, spread, label=label, colour=colour, dashes=dashes)
        values += [] if spread is None else [spread.mean]
    return values


def _comparable(run: FinishedRun, probe: str, scalar: str) -> bool:
    """Whether a relaxation has the units of the network that it left; what is not of a part is not told in others."""
    return not scalar.endswith("_shared") or not all(incomparable(series, probe) for series in run.series)


def _lines(run: FinishedRun, colours: Mapping[str, str], probe: str, scalar: str) -> list[Line]:
    lines: list[Line] = []
    for index, series in enumerate(run.series):
        for moment, style in MOMENTS.items():
            # Where a network and its relaxations are equal at the switch, rings lie around each other.
            size = {"markersize": 4.5 + 2.5 * (len(run.series) - 1 - index)} if moment == "start" else {}
            label = f"{series.name} {WHEN[moment]}"
            lines.append((series.branches, moment, {"color": colours[series.relaxation], "label": label, **style, **size}))
    if _comparable(run, probe, scalar):
        lines.append(({switch: group for series in run.series for switch, group in series.continued.items()}, "end", control(run)))
    return lines
