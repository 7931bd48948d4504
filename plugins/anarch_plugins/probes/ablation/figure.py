"""Accuracy of parts of the weights alone: figure 7 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    CONTROL,
    INK,
    SWITCH_TIME,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    Panel,
    Series,
    constrained,
    difference,
    each_run,
    names,
    over_seeds,
    points,
    probed,
    require_probes,
    sentences,
    styled,
    switches,
    time_axis,
)


class Parts(AbstractFigure):
    """Local and off-local weights alone."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Score of the local and of the off-local weights alone against switch time (figure 7).

        There is a panel for every relaxation with off-local weights.

        Raises:
            NothingToDrawError: the probe ablation was not run, or every relaxation keeps its weights local.
        """
        require_probes(runs, "ablation")
        names = dict.fromkeys(series.relaxation for run in runs for series in run.series if _has_off_local(series))
        if not names:
            msg = "no relaxation of these runs has off-local weights"
            raise NothingToDrawError(msg)
        return each_run(runs, [_parts(name) for name in names], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What the parts are, and where the off-local weights add most."""
        seen = []
        for run in runs:
            for series in run.series:
                gains = {}
                for switch, group in series.branches.items():
                    full, local = (probed(group, "ablation", "end", f"{run.metric.name}_{part}") for part in ("full", "local"))
                    if full is not None and local is not None:
                        gains[switch] = full.mean - local.mean
                if gains and any(gains.values()):
                    most = (max if run.metric.higher_is_better else min)(gains, key=lambda switch: gains[switch])
                    gain = difference(gains[most], run.metric)
                    seen.append(f"{series.label(runs)}: the off-local weights add most for t_w = {most:g}, {gain}.")
        data = " or ".join(dict.fromkeys(run.evaluated_on("ablation") for run in runs))
        network = constrained(runs)
        places, size = (
            ("receptive fields of the CNN", "the receptive field has")
            if network == "CNN"
            else (f"those that are not zero by the constraints of the {network}", "are local")
        )
        return sentences(
            f"{data.capitalize()} {names(runs)} of the trained network with only its local weights ({places}) and with only its "
            f"off-local ones (as d'Ascoli et al. 2019, Fig. 7); as a control, random masks that keep as many weights per row as {size}.",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *seen,
        )


def _has_off_local(series: Series) -> bool:
    """Whether taking the off-local weights away changes anything, or it is not known that it does not."""
    ends = [segment.scalars("ablation", "end") for group in series.branches.values() for segment in group]
    losses = [(end["loss_local"], end["loss_full"]) for end in ends if "loss_full" in end]
    return any(local is None or full is None or local != full for local, full in losses)


def _parts(relaxation: str) -> Panel:
    shown = {
        "full": (INK, "o-", "whole network"),
        "local": ("#0072b2", "s-", "local weights only"),
        "off_local": ("#d55e00", "D-", "off-local weights only"),
        "random": (CONTROL, "^-", "random masks, same size"),
    }

    def draw(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
        series = Series(run=run, relaxation=relaxation)
        for part, (colour, fmt, label) in shown.items():
            found = {switch: probed(group, "ablation", "end", f"{run.metric.name}_{part}") for switch, group in series.branches.items()}
            points(axes, list(found), list(found.values()), color=colour, fmt=fmt, label=label)
        time_axis(axes, switches(run), SWITCH_TIME)
        axes.set_ylabel(run.score_label(run.evaluated_on("ablation")))
        axes.set_title(series.name, loc="right")

    return draw
