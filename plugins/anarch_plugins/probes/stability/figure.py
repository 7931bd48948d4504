"""When a network becomes stable to the noise of descent, beside when relaxing pays: after Frankle et al. (2020), figures 1 and 3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.report import (
    CONTROL,
    SWITCH_TIME,
    AbstractFigure,
    FinishedRun,
    SegmentResult,
    Series,
    Spread,
    by_switch,
    constrained,
    control,
    each_run,
    level,
    names,
    over_seeds,
    points,
    sentences,
    styled,
    switches,
    time_axis,
)

STABLE = 2.0
"""Points of accuracy below which Frankle et al. (2020) call a network stable."""


class Stability(AbstractFigure):
    """Stability to the noise of descent."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Barrier between networks that met the batches in different orders, and what relaxing gains, against switch time."""
        return each_run(runs, [_barriers, _gains], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What was measured, from when on networks are stable, and for which switch times relaxing gains."""
        network = constrained(runs)
        percent = any(run.metric.unit == "%" for run in runs)
        return sentences(
            f"Left: how much worse the worst test {names(runs)} on the straight line between two networks is than the mean of both, which "
            f"were trained from one network at t_w on the same batches in different orders (as Frankle et al. 2020), for the {network} "
            "trained on and for its relaxations.",
            "Dotted: 2 points, below which they call a network stable." if percent else "",
            f"Right: test {names(runs)} of the relaxed network after training less that of the {network} trained on as long, paired by "
            "seed.",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds"),
            *(text for run in runs for text in _onsets(run, runs) if percent),
        )


def _onsets(run: FinishedRun, runs: Sequence[FinishedRun]) -> list[str]:
    """From which switch time on each network is stable, and for which ones relaxing gains."""
    said = []
    found = {f"{run.constrained} continued": _measured(run, "continued", None)}
    found |= {series.label(runs): _measured(run, "branch", series.relaxation) for series in run.series}
    for name, spreads in found.items():
        unstable = [switch for switch, spread in spreads.items() if spread.mean >= STABLE]
        stable = [switch for switch in spreads if switch > max(unstable, default=-1.0)]
        if spreads:
            said.append(f"{name}: {f'stable from t_w = {stable[0]:g} on' if stable else 'stable at no switch time'}.")
    for series in run.series:
        gains = {switch: spread.mean for switch, spread in _paired(series).items()}
        if gains:
            better = run.metric.higher_is_better
            paying = [f"{switch:g}" for switch, gain in gains.items() if gain and (gain > 0) == better]
            when = f"t_w = {', '.join(paying)}" if paying else "no switch time"
            said.append(f"{series.label(runs)}: relaxing gains on average at {when}.")
    return said


def _barriers(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    metric = run.metric
    for series in run.series:
        found = _measured(run, "branch", series.relaxation)
        colour = colours[series.relaxation]
        points(axes, list(found), list(found.values()), fmt="o-", color=colour, label=f"{series.name} after training")
        alone = [segment for segment in run.segments("scratch", noise=True) if segment.relaxation == series.relaxation]
        level(axes, _by_seed(alone, f"{metric.name}_barrier_test"), label=f"{series.name} from scratch", colour=colour, dashes="--")
    found = _measured(run, "continued", None)
    points(axes, list(found), list(found.values()), **control(run))
    if metric.unit == "%":
        axes.axhline(STABLE, color=CONTROL, linestyle=":", linewidth=0.9)
    axes.set_ylabel(f"barrier in\n{run.score_label()}")
    time_axis(axes, switches(run), SWITCH_TIME)


def _gains(axes: Axes, run: FinishedRun, colours: Mapping[str, str]) -> None:
    for series in run.series:
        found = _paired(series)
        style = {"fmt": "o-", "color": colours[series.relaxation], "label": f"{series.name} after training"}
        points(axes, list(found), list(found.values()), **style)
    axes.axhline(0, color=CONTROL, linewidth=0.7)
    axes.set_ylabel(f"gain over continued in\n{run.score_label()}")
    time_axis(axes, switches(run), SWITCH_TIME)


def _measured(run: FinishedRun, kind: str, relaxation: str | None) -> dict[float, Spread]:
    """By switch time, the barrier over seeds."""
    found = by_switch(run.segments(kind, relaxation, noise=True))
    spreads = {switch: _by_seed(group, f"{run.metric.name}_barrier_test") for switch, group in found.items()}
    return {switch: spread for switch, spread in spreads.items() if spread is not None}


def _by_seed(segments: Iterable[SegmentResult], scalar: str) -> Spread | None:
    """Over seeds, the mean over the orders of batches of each."""
    values: dict[int, list[float]] = {}
    for segment in segments:
        value = segment.scalars("stability", "end").get(scalar)
        if value is not None:
            values.setdefault(segment.seed, []).append(value)
    return Spread.of(sum(found) / len(found) for found in values.values())


def _paired(series: Series) -> dict[float, Spread]:
    """By switch time, the score of the branch less that of the control, seed by seed."""
    spreads = {switch: Spread.of(gains.values()) for switch, gains in series.gains.items()}
    return {switch: spread for switch, spread in spreads.items() if spread is not None}
