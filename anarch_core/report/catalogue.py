"""The figures of a report: anarch's own, and those that plugins register."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from anarch_core.plugin.blame import answering
from anarch_core.plugin.records import FigureInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.report.evidence import FinishedRun, NothingToDrawError, Series, require_probes
from anarch_core.report.figure import AbstractFigure, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = (
    FigureInfo(
        name="training-curves",
        summary="Loss and score against training time.",
        title="Loss and score while training",
        target="anarch_core.report.figures.training:TrainingCurves",
        order=2,
    ),
    FigureInfo(
        name="performance",
        summary="Final score, and what probes give an axis, against switch time.",
        title="Final score and sharpness by switch time",
        target="anarch_core.report.figures.performance:Performance",
        order=3,
    ),
    FigureInfo(
        name="accuracy-histories",
        summary="Scores that branches go through, over the trunk's curve.",
        title="What branches go through, over the trunk's curve",
        target="anarch_core.report.figures.training:AccuracyHistories",
        order=9,
    ),
)
"""Figures that show no probe; every run can have them."""


@attrs.frozen(slots=False)
class ListedFigure:
    """A figure as the page asks for it: imported when it is first needed, and asked only for runs that have what it needs.

    Attributes:
        info: its record.
        registry: where the record comes from, unless it is one of :data:`OWN`.
    """

    info: FigureInfo
    registry: Registry

    @functools.cached_property
    def figure(self) -> AbstractFigure:
        """The figure itself.

        Raises:
            PluginError: its target cannot be imported, or is no figure.
        """
        if self.info in OWN:
            module, _, name = self.info.target.partition(":")
            made: AbstractFigure = getattr(importlib.import_module(module), name)()
        else:
            made = self.registry.call(self.info)
        return made

    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Draw it.

        Raises:
            NothingToDrawError: the runs do not have what it shows.
        """
        require_probes(runs, *self.info.needs)
        return answering(self.figure.draw)(runs, narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """Its caption for runs that it was drawn for."""
        return answering(self.figure.caption, str)(runs)

    def findings(self, series: Series) -> Sequence[str]:
        """What it says of a relaxation; nothing where a probe is missing."""
        return answering(self.figure.findings)(series) if self._has_needs(series.run) else ()

    def tables(self, run: FinishedRun) -> Sequence[Table]:
        """Its tables of a run; none where a probe is missing."""
        return answering(self.figure.tables)(run) if self._has_needs(run) else ()

    def _has_needs(self, run: FinishedRun) -> bool:
        try:
            require_probes([run], *self.info.needs)
        except NothingToDrawError:
            return False
        return True


def figures(registry: Registry | None = None) -> tuple[ListedFigure, ...]:
    """All figures in the order of the page; of two with one name the first, anarch's own before others.

    Args:
        registry: of the plugins; that of the installed ones if None.
    """
    registry = registry or get_registry()
    infos: dict[str, FigureInfo] = {info.name: info for info in OWN}
    for info in registry.infos("figure"):
        if isinstance(info, FigureInfo):
            infos.setdefault(info.name, info)
    return tuple(ListedFigure(info, registry) for info in sorted(infos.values(), key=lambda info: (info.order, info.name)))
