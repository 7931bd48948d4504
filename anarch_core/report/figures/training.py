"""How training goes: figures 2 and 9 of d'Ascoli et al. (2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, Series, all_series, history, score
from anarch_core.report.figure import AbstractFigure
from anarch_core.report.figures.style import (
    INK,
    MOMENTS,
    SWITCH_TIME,
    WHEN,
    equal_axes,
    grid,
    legend,
    level,
    log_axis,
    styled,
    time_axis,
    time_bar,
    time_colours,
)
from anarch_core.report.text import constrained, in_units, names, over_seeds, sentences

_MARKS: dict[str, dict[str, Any]] = {
    "start": {"marker": "o", "linestyle": "none", "mfc": MOMENTS["start"]["mfc"], "mew": MOMENTS["start"]["mew"]},
    "end": {"marker": "o", "linestyle": "none"},
    "between": {"marker": "x", "linestyle": "none", "markersize": 4.0, "mew": 1.0},
}
"""As of :data:`MOMENTS`, and of the epochs between."""


class TrainingCurves(AbstractFigure):
    """Loss and score while training: figure 2."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Training loss and test score against training time, coloured by switch time (figure 2); a row per relaxation.

        Raises:
            NothingToDrawError: no branch is finished.
        """
        every = all_series(runs)
        figure, axes = grid(len(every), 2, narrow=narrow, height=2.5)
        for series, row in zip(every, axes, strict=True):
            colours = time_colours(series.branches)
            shown = {"train_loss": series.run.loss_label(), series.run.test_score: series.run.score_label()}
            for panel, (name, label) in zip(row, shown.items(), strict=True):
                for switch, segments in series.branches.items():
                    _curve(panel, segments, name, color=colours[switch], linewidth=1.0)
                _curve(panel, series.run.trunk, name, color=INK, linewidth=1.6, label=series.run.constrained)
                _curve(panel, series.scratch, name, color=INK, linewidth=1.2, linestyle="--", label="relaxed network from scratch")
                time_axis(panel, _epochs(series), "training time (epochs)")
                panel.set_ylabel(label)
                if len(every) > 1:
                    panel.set_title(series.label(runs), loc="left")
            log_axis(
                row[0],
                [spread.mean for group in (*series.branches.values(), series.run.trunk) for _, spread in history(group, "train_loss")],
            )
            time_bar(figure, row, colours, SWITCH_TIME)
        equal_axes(panel for row in axes for panel in row)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """How to read the axes, and what was reached."""
        return sentences(
            f"Training loss and test {names(runs)} against training time, counted for a branch from its switch (as d'Ascoli et al. "
            "2019, Fig. 2).",
            "The axis is logarithmic and includes epoch 0. Within an epoch the loss is that of the batches as they came.",
            over_seeds(runs, "lines are means over {n} seeds, bands their 95 % t-intervals"),
            *(f"{series.label(runs)}: {_reached(series)}." for run in runs for series in run.series),
        )


class AccuracyHistories(AbstractFigure):
    """What branches go through, over the trunk's curve: figure 9."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Above every switch time the test scores that its branch went through, over the trunk's curve; a panel per relaxation.

        Raises:
            NothingToDrawError: no branch is finished.
        """
        every = all_series(runs)
        columns = min(2, len(every))
        rows = -(-len(every) // columns)
        figure, axes = grid(rows, columns, narrow=narrow, height=2.7)
        panels = [panel for row in axes for panel in row]
        for spare in panels[len(every) :]:
            spare.remove()
        found = [
            {switch: dict(history(segments, series.run.test_score)) for switch, segments in series.branches.items()} for series in every
        ]
        colours = time_colours(epoch for curves in found for curve in curves.values() for epoch in curve)
        for series, curves, panel in zip(every, found, panels, strict=False):
            _curve(panel, series.run.trunk, series.run.test_score, color=INK, linewidth=1.4, label=series.run.constrained)
            scratch = score(series.scratch, "final", series.run.test_score)
            level(panel, scratch, label="relaxed network from scratch", colour=INK, dashes="--")
            for switch, curve in curves.items():
                for epoch, spread in curve.items():
                    moment = "start" if epoch == min(curve) else "end" if epoch == max(curve) else "between"
                    panel.plot(switch, spread.mean, label=WHEN.get(moment, "in between"), color=colours[epoch], **_MARKS[moment])
            time_axis(panel, [*series.branches, *_epochs(series, branches=False)], f"training time, {SWITCH_TIME}")
            panel.set_ylabel(series.run.score_label())
            if len(every) > 1:
                panel.set_title(series.label(runs), loc="left")
        equal_axes(panels[: len(every)])
        time_bar(figure, panels[: len(every)], colours, "epochs after the switch")
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """How to read the crosses, and what was reached."""
        return sentences(
            f"The {constrained(runs)}'s test {names(runs)} while it trains (line) and, above every switch time, what the branch leaving "
            "there goes through (hollow at the switch, filled after training, crosses in between, coloured by epochs since the switch; as "
            "d'Ascoli et al. 2019, Fig. 9).",
            over_seeds(runs, "everything is a mean over {n} seeds, bands are 95 % t-intervals"),
            *(f"{series.label(runs)}: {_reached(series)}." for run in runs for series in run.series),
        )


def _reached(series: Series) -> str:
    key, metric = series.run.test_score, series.run.metric
    finals = {switch: spread for switch, group in series.branches.items() if (spread := score(group, "final", key))}
    if not finals:
        return "no branch has a score"
    low, high = (choose(finals, key=lambda switch: finals[switch].mean) for choose in (min, max))
    ends = " and ".join(f"{in_units(finals[switch], metric)} (t_w = {switch:g})" for switch in (low, high))
    text = f"the final test {metric.label} lies between {ends}"
    for name, segments in ((f"the {series.run.constrained}", series.run.trunk), ("from scratch", series.scratch)):
        reached = score(segments, "final", key)
        text += f", {name} {in_units(reached, metric)}" if reached is not None else ""
    return text


def _curve(axes: Axes, segments: Sequence[SegmentResult], name: str, **style: Any) -> None:
    """Mean over seeds, in a band of its t-interval."""
    curve = list(history(segments, name))
    if not curve:
        return
    epochs, means = [epoch for epoch, _ in curve], [spread.mean for _, spread in curve]
    axes.plot(epochs, means, **style)
    margins = [spread.margin or 0.0 for _, spread in curve]
    if any(margins):
        low = [mean - margin for mean, margin in zip(means, margins, strict=True)]
        high = [mean + margin for mean, margin in zip(means, margins, strict=True)]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _epochs(series: Series, *, branches: bool = True) -> list[float]:
    segments = [*series.run.trunk, *(segment for group in series.branches.values() for segment in group if branches)]
    return [segment.epochs for segment in segments]
