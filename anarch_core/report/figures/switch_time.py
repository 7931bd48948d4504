"""What becomes of a branch, by its switch time: figures 3, 4 and 7 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, NothingToDrawError, Series, Spread, all_series, probed, score
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

SHARPNESS = {
    ("gradient", "norm"): r"gradient norm $|\nabla\mathcal{L}|$",
    ("hessian", "lambda_max"): r"largest eigenvalue $\lambda_\mathrm{max}$",
}
"""Panels of figure 3 beside the accuracy, where the probe was run."""


@styled
def performance(runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
    """Final accuracy, gradient norm and largest eigenvalue against switch time (figure 3); panels of probes that did not run are left out.

    Raises:
        NothingToDrawError: no branch is finished.
    """
    all_series(runs)
    panels: list[Panel] = [_accuracy]
    for probe, scalar in sharpness_measured(runs):
        panels.append(_sharpness(probe, scalar))
    return each_run(runs, panels, narrow=narrow)


def sharpness_measured(runs: Sequence[FinishedRun]) -> list[tuple[str, str]]:
    """Which (probe, scalar) of :data:`SHARPNESS` the branches have."""
    branches = [segment for run in runs for segment in run.segments("branch")]
    return [key for key in SHARPNESS if probed(branches, key[0], "end", key[1]) is not None]


@styled
def deviation(runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
    """Deviation from the constrained subspace against switch time, initial loss and final accuracy (figure 4).

    Raises:
        NothingToDrawError: the probe delta was not run.
    """
    _require(runs, "delta", "off_local")
    beside = [_against("start", "train_loss", "training loss at the switch (nats)"), _against("final", "test_accuracy", TEST_ACCURACY)]
    return each_run(runs, [_deviation, *beside], narrow=narrow)


@styled
def parts(runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
    """Test accuracy of the local and of the off-local weights alone against switch time (figure 7).

    There is a panel for every relaxation with off-local weights.

    Raises:
        NothingToDrawError: the probe ablation was not run, or every relaxation keeps its weights local.
    """
    _require(runs, "ablation", "accuracy_local")
    names = dict.fromkeys(series.relaxation for run in runs for series in run.series if _has_off_local(series))
    if not names:
        msg = "no relaxation of these runs has off-local weights"
        raise NothingToDrawError(msg)
    return each_run(runs, [_parts(name) for name in names], narrow=narrow)


def _has_off_local(series: Series) -> bool:
    """Whether taking the off-local weights away changes anything."""
    ends = [segment.scalars("ablation", "end") for group in series.branches.values() for segment in group]
    return any(end.get("loss_local") != end.get("loss_full") for end in ends)


def _require(runs: Sequence[FinishedRun], probe: str, scalar: str) -> None:
    all_series(runs)
    branches = [segment for run in runs for segment in run.segments("branch")]
    if probed(branches, probe, "end", scalar) is None:
        msg = f"the probe {probe} was not run; run again with --probe {probe}"
        raise NothingToDrawError(msg)


def _accuracy(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    level(axes, score(run.trunk, "final", "test_accuracy"), label="CNN", colour=INK)
    continued = {switch: group for series in run.series for switch, group in series.continued.items()}
    _line(axes, continued, lambda group: score(group, "final", "test_accuracy"), color=CONTROL, fmt="o:", mfc="none", label="CNN continued")
    for series in run.series:
        colour = colours[series.relaxation]
        name = series.relaxation
        level(axes, score(series.scratch, "final", "test_accuracy"), label=f"{name} from scratch", colour=colour, dashes="--")
        _line(axes, series.branches, lambda group: score(group, "final", "test_accuracy"), color=colour, fmt="x-", mew=1.3, label=name)
    time_axis(axes, _switches(run), SWITCH_TIME)
    axes.set_ylabel(f"final {TEST_ACCURACY}")


def _sharpness(probe: str, scalar: str) -> Panel:
    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        several = len(colours) > 1
        shown: list[float] = []
        for series in run.series:
            for moment, fmt, face in (("start", "o:", "none"), ("end", "x-", None)):
                label = {"start": "at the switch", "end": "after training"}[moment]
                style = {"color": colours[series.relaxation], "fmt": fmt, "mfc": face}
                found = {switch: probed(group, probe, moment, scalar) for switch, group in series.branches.items()}
                points(axes, list(found), list(found.values()), **style, label=f"{series.relaxation} {label}" if several else label)
                shown += [spread.mean for spread in found.values() if spread is not None]
        controls = {switch: group for series in run.series for switch, group in series.continued.items()}
        found = {switch: probed(group, probe, "end", scalar) for switch, group in controls.items()}
        points(axes, list(found), list(found.values()), color=CONTROL, fmt="o:", mfc="none", label="CNN continued")
        log_axis(axes, shown)
        time_axis(axes, _switches(run), SWITCH_TIME)
        axes.set_ylabel(SHARPNESS[probe, scalar])

    return draw


def _deviation(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    shown = []
    for series in run.series:
        colour = colours[series.relaxation]
        for scalar, fmt, label in (
            ("off_local", "x-", rf"{series.relaxation}: $\delta$"),
            ("unshared", "s:", f"{series.relaxation}: unshared"),
        ):
            found = {switch: probed(group, "delta", "end", scalar) for switch, group in series.branches.items()}
            if any(spread is not None and spread.mean > 0 for spread in found.values()):
                points(axes, list(found), list(found.values()), color=colour, fmt=fmt, mfc="none" if fmt == "s:" else None, label=label)
                shown += [spread.mean for spread in found.values() if spread is not None]
    log_axis(axes, shown)
    time_axis(axes, _switches(run), SWITCH_TIME)
    axes.set_ylabel(r"deviation $\delta$")


def _against(moment: str, name: str, label: str) -> Panel:
    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        shown = []
        for series in run.series:
            groups: list[tuple[Sequence[SegmentResult], dict[str, Any]]] = [
                (group, {"fmt": "x", "label": rf"{series.relaxation}: $\delta$"}) for group in series.branches.values()
            ]
            groups.append((series.scratch, {"fmt": "D", "mfc": "none", "label": f"{series.relaxation} from scratch"}))
            for group, style in groups:
                delta, other = probed(group, "delta", "end", "off_local"), score(group, moment, name)
                if delta is not None and other is not None and delta.mean > 0:
                    if other.deviation or delta.deviation:
                        style |= {"xerr": other.deviation, "yerr": delta.deviation}
                    axes.errorbar(other.mean, delta.mean, color=colours[series.relaxation], mew=1.3, **style)
                    shown.append(delta.mean)
        log_axis(axes, shown)
        axes.set_xlabel(label)
        axes.set_ylabel(r"deviation $\delta$")

    return draw


def _parts(relaxation: str) -> Panel:
    shown = {
        "accuracy_full": (INK, "o-", "whole network"),
        "accuracy_local": ("#0072b2", "s-", "local weights only"),
        "accuracy_off_local": ("#d55e00", "x-", "off-local weights only"),
        "accuracy_random": (CONTROL, "^:", "random masks, same size"),
    }

    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        series = Series(run=run, relaxation=relaxation)
        for scalar, (colour, fmt, label) in shown.items():
            found = {switch: probed(group, "ablation", "end", scalar) for switch, group in series.branches.items()}
            points(axes, list(found), list(found.values()), color=colour, fmt=fmt, mfc="none", label=label)
        time_axis(axes, _switches(run), SWITCH_TIME)
        axes.set_ylabel(TEST_ACCURACY)
        axes.set_title(relaxation, loc="right")

    return draw


def _line(axes: Axes, groups: Any, value: Callable[[Iterable[SegmentResult]], Spread | None], **style: Any) -> None:
    points(axes, list(groups), [value(group) for group in groups.values()], **style)


def _switches(run: FinishedRun) -> list[float]:
    return [switch for series in run.series for switch in series.branches]
