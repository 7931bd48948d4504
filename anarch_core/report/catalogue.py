"""The figures of a report, in the order of the paper."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from anarch_core.report import captions
from anarch_core.report.evidence import FinishedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class FigureKind:
    """One figure.

    Attributes:
        name: stem of its files.
        title: what it shows.
        target: ``"module:function"`` in :mod:`anarch_core.report.figures`, imported when it is drawn; the function takes runs, and
            ``narrow=True`` for panels below each other.
        caption: its caption for some runs.
    """

    name: str
    title: str
    target: str
    caption: Callable[[Sequence[FinishedRun]], str]

    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Draw it.

        Raises:
            NothingToDrawError: the runs do not have what it shows.
        """
        module, _, function = self.target.partition(":")
        figure: Figure = getattr(importlib.import_module(f"anarch_core.report.figures.{module}"), function)(runs, narrow=narrow)
        return figure


FIGURES = (
    FigureKind(
        name="training-curves",
        title="Loss and accuracy while training",
        target="training:training_curves",
        caption=captions.training_curves,
    ),
    FigureKind(
        name="performance",
        title="Final accuracy and sharpness by switch time",
        target="switch_time:performance",
        caption=captions.performance,
    ),
    FigureKind(
        name="deviation", title="Deviation from the constrained subspace", target="switch_time:deviation", caption=captions.deviation
    ),
    FigureKind(name="filters", title="Filters before and after", target="weights:filters", caption=captions.filters),
    FigureKind(name="parts", title="Local and off-local weights alone", target="switch_time:parts", caption=captions.parts),
    FigureKind(name="weight-matrix", title="A block of the weight matrix", target="weights:weight_matrix", caption=captions.weight_matrix),
    FigureKind(
        name="accuracy-histories",
        title="What branches go through, over the CNN's curve",
        target="training:accuracy_histories",
        caption=captions.accuracy_histories,
    ),
    FigureKind(name="paths", title="On the way into the relaxed network", target="interpolation:paths", caption=captions.paths),
)
"""Figures 2, 3, 4, 5 and 6, 7, 8, 9 and 12 of d'Ascoli et al. (2019)."""
