"""How far the network went from the constrained subspace: figure 4 of d'Ascoli et al. (2019), and drift by layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    MOMENTS,
    SWITCH_TIME,
    AbstractFigure,
    FinishedRun,
    SegmentResult,
    Series,
    Spread,
    Table,
    each_run,
    log_axis,
    names,
    number,
    over_seeds,
    points,
    probed,
    require_probes,
    score,
    sentences,
    some,
    styled,
    switches,
    time_axis,
)

DRIFT = {
    "off_local": "δ: off-local part over all relaxed weights",
    "unshared": "unshared part over all relaxed weights",
    "moved": "way of the shared part since the switch, over its norm there",
}

TOTAL = "all relaxed layers"


class Deviation(AbstractFigure):
    """Deviation from the constrained subspace, with a sentence on it and tables by layer."""

    heading = "Drift by layer"

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Deviation from the constrained subspace against switch time, initial loss and final score (figure 4).

        Raises:
            NothingToDrawError: the probe delta was not run.
        """
        require_probes(runs, "delta")
        return each_run(runs, [_deviation, _against_loss, _against_score] if _left_zeros(runs) else [_deviation], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """How to read the panels, and whether δ falls with later switches."""
        seen = []
        for run in runs:
            for series in run.series:
                deltas = [
                    spread.mean for group in series.branches.values() if (spread := probed(group, "delta", "end", "off_local")) is not None
                ]
                if 1 < len(deltas) == len(series.branches) and max(deltas) > 0:
                    falls = all(later <= earlier for earlier, later in itertools.pairwise(deltas))
                    how = "falls at every step" if falls else "does not fall at every step"
                    seen.append(f"{series.label(runs)}: δ {how} with later switches, from {deltas[0]:.3g} to {deltas[-1]:.3g}.")
        if not _left_zeros(runs):
            return sentences(
                "The part of the weights that giving up sharing added, its norm over that of all relaxed weights, after training, against "
                "switch time. Nothing that was zero came to be another number, so that the deviation δ of d'Ascoli et al. 2019, Fig. 4, "
                "is 0 throughout.",
                over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            )
        return sentences(
            "Deviation δ from the constrained subspace, the norm of the off-local weights over that of all relaxed weights, after training "
            f"(as d'Ascoli et al. 2019, Fig. 4): against switch time, the loss at the switch, and the final test {names(runs)}.",
            "Diamonds: the part that giving up sharing added, over the same norm. Numbers beside points are switch times t_w; the star is "
            "the relaxed network from scratch.",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )

    def findings(self, series: Series) -> list[str]:
        """δ for the first switch and the last, and from scratch."""
        deltas = {switch: probed(group, "delta", "end", "off_local") for switch, group in series.branches.items()}
        known = {switch: spread.mean for switch, spread in deltas.items() if spread is not None}
        if not known or max(known.values()) == 0:
            return []
        first, last = min(known), max(known)
        text = f"The deviation δ from the constrained subspace is {known[first]:.3g} for t_w = {first:g}"
        text += f" and {known[last]:.3g} for t_w = {last:g}" if last != first else ""
        scratch = probed(series.scratch, "delta", "end", "off_local")
        return [text + (f"; from scratch it is {scratch.mean:.3g}." if scratch is not None else ".")]

    def tables(self, run: FinishedRun) -> list[Table]:
        """How far each layer went, by switch time, for every relaxation and every part of the drift."""
        every = (_by_layer(series, scalar, title) for series in run.series for scalar, title in DRIFT.items())
        return [table for table in every if table is not None]


def _left_zeros(runs: Sequence[FinishedRun]) -> bool:
    """Whether a branch has anything where the constrained network has zeros."""
    branches = [segment for run in runs for segment in run.segments("branch")]
    return any(segment.scalars("delta", "end").get("off_local") for segment in branches)


def _deviation(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    shown = []
    for series in run.series:
        colour = colours[series.relaxation]
        for scalar, style, label in (
            ("off_local", MOMENTS["end"], rf"{series.name}: $\delta$"),
            ("unshared", {"fmt": "D-", "markersize": 3.5, "linewidth": 0.8}, f"{series.name}: unshared"),
        ):
            found = {switch: probed(group, "delta", "end", scalar) for switch, group in series.branches.items()}
            if any(spread is not None and spread.mean > 0 for spread in found.values()):
                points(axes, list(found), list(found.values()), color=colour, label=label, **style)
                shown += [spread.mean for spread in found.values() if spread is not None]
    log_axis(axes, shown)
    time_axis(axes, switches(run), SWITCH_TIME)
    axes.set_ylabel(r"deviation $\delta$" if _left_zeros([run]) else "unshared part")


def _against_loss(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    _against(axes, run, colours, "start", "train_loss")
    axes.set_xlabel(run.loss_label("at the switch"))


def _against_score(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    _against(axes, run, colours, "final", run.test_score)
    axes.set_xlabel(run.score_label())


def _against(axes: Axes, run: FinishedRun, colours: Mapping[str, str], moment: str, name: str) -> None:
    shown: list[float] = []
    for series in run.series:
        colour = colours[series.relaxation]
        met = {switch: found for switch, group in series.branches.items() if (found := _met(group, moment, name)) is not None}
        if met:
            axes.plot(*zip(*((other.mean, delta.mean) for other, delta in met.values()), strict=True), color=colour, linewidth=0.6)
        for found in met.values():
            _mark(axes, found, color=colour, fmt="o", label=rf"{series.name}: $\delta$")
        scratch = _met(series.scratch, moment, name)
        if scratch is not None:
            _mark(axes, scratch, color=colour, fmt="*", markersize=7, label=f"{series.name} from scratch")
        shown += [delta.mean for _, delta in (*met.values(), *([scratch] if scratch else []))]
    log_axis(axes, shown)
    for series in run.series:
        _name_points(axes, {switch: found for switch, group in series.branches.items() if (found := _met(group, moment, name)) is not None})
    axes.set_ylabel(r"deviation $\delta$")


def _name_points(axes: Axes, met: Mapping[float, tuple[Spread, Spread]]) -> None:
    """Write switch times above the points; those of points that nearly coincide share a place, and of many some are written."""
    if not met:
        return
    shown = axes.dataLim
    across, up = max(shown.width, 1e-12), max(math.log(shown.y1 / shown.minposy), 1e-12)
    places: list[tuple[float, float, list[float]]] = []
    for switch, (other, delta) in met.items():
        for x, y, together in places:
            if abs(x - other.mean) < 0.06 * across and abs(math.log(y / delta.mean)) < 0.08 * up:
                together.append(switch)
                break
        else:
            places.append((other.mean, delta.mean, [switch]))
    for index in some(list(range(len(places))), 8):
        x, y, together = places[int(index)]
        text = ", ".join(f"{switch:g}" for switch in together)
        axes.annotate(text, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6.5)


def _met(group: Sequence[SegmentResult], moment: str, name: str) -> tuple[Spread, Spread] | None:
    """A score and δ, where both are there and a logarithm of δ can be."""
    other, delta = score(group, moment, name), probed(group, "delta", "end", "off_local")
    return None if other is None or delta is None or delta.mean <= 0 else (other, delta)


def _mark(axes: Axes, found: tuple[Spread, Spread], **style: Any) -> None:
    other, delta = found
    axes.errorbar(other.mean, delta.mean, xerr=other.margin, yerr=delta.margin, elinewidth=0.7, capsize=0, **style)


def _by_layer(series: Series, scalar: str, title: str) -> Table | None:
    """None where no layer moved."""
    groups: dict[str, Sequence[SegmentResult]] = {f"t_w = {switch:g}": group for switch, group in series.branches.items()}
    if series.scratch:
        groups["scratch"] = series.scratch
    rows: dict[str, list[str]] = {}
    for group in groups.values():
        layers = dict.fromkeys(layer for segment in group for layer in _layers(segment))
        for layer in layers:
            rows.setdefault(layer, [])
    if not rows:
        return None
    rows[TOTAL] = []
    for group in groups.values():
        for layer, cells in rows.items():
            ends = [segment.scalars("delta", "end") if layer == TOTAL else _layers(segment).get(layer, {}) for segment in group]
            cells.append(number([value for end in ends if (value := end.get(scalar)) is not None]))
    if not any(cell not in ("", "0") for cells in rows.values() for cell in cells):
        return None
    return Table(
        caption=f"{series.relaxation}: {title}",
        headings=["layer", *groups],
        rows=[[layer, *cells] for layer, cells in rows.items()],
        strong=[len(rows) - 1],
    )


def _layers(segment: SegmentResult) -> Mapping[str, Mapping[str, float | None]]:
    layers: Mapping[str, Mapping[str, float | None]] = segment.details("delta", "end").get("layers", {})
    return layers
