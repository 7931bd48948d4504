"""Contours of the loss on planes through and around the relaxed network (Garipov et al. 2018, Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from anarch_core.report import (
    INK,
    AbstractFigure,
    FinishedRun,
    NothingToDrawError,
    Pictured,
    constrained,
    grid,
    legend,
    pictured,
    sentences,
    styled,
)
from anarch_plugins.probes.plane.levels import Levels

Array = np.ndarray[Any, Any]

KINDS = ("parent", "control", "random")

MARKS = {"parent": "s", "control": "s", "projection": "D", "network": "o"}


@attrs.frozen(kw_only=True)
class Cell:
    """One plane of one branch.

    Attributes:
        shown: the branch.
        kind: of plane, as the option ``through`` of the probe names it.
        arrays: of the first seed that has them, by the names that the probe gives them after the kind.
    """

    shown: Pictured
    kind: str
    arrays: Mapping[str, Array]

    @property
    def run(self) -> FinishedRun:
        """That it belongs to."""
        return self.shown.series.run

    @property
    def details(self) -> Mapping[str, Any]:
        """What the probe reported of any branch of its series."""
        found = (segment.details("plane", "end") for group in self.shown.series.branches.values() for segment in group)
        return next((details for details in found if details), {})


class PlaneFigure(AbstractFigure):
    """Planes through the landscape."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Training loss on every plane that was measured, for four switch times, or two of every relaxation.

        Raises:
            NothingToDrawError: the probe plane was not run, or found no plane.
        """
        cells = _cells(runs)
        kinds = len({cell.kind for cell in cells})
        columns = kinds if kinds > 1 else min(2, len(cells))
        figure, axes = grid(-(-len(cells) // columns), columns, narrow=narrow, height=2.6)
        panels = [panel for row in axes for panel in row]
        for panel in panels[len(cells) :]:
            panel.set_axis_off()
        for label, levels in _levels(cells).items():
            alike = [(cell, panel) for cell, panel in zip(cells, panels, strict=False) if cell.run.loss_label() == label]
            norm = BoundaryNorm(levels.values, mpl.colormaps["viridis"].N, extend="both")
            for cell, panel in alike:
                _draw(panel, cell, levels, norm)
            beside = [panel for _, panel in alike]
            colours = mpl.cm.ScalarMappable(norm, mpl.colormaps["viridis"])
            scale = figure.colorbar(colours, ax=beside, aspect=20 * len(axes if not narrow else cells), pad=0.02, fraction=0.05)
            scale.set_ticks(levels.values, labels=[f"{level:.3g}" for level in levels.values])
            scale.ax.minorticks_off()
            scale.set_label(label)
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What the planes are, how contours are spaced, and how much of the way is seen."""
        cells = _cells(runs)
        kinds = {cell.kind for cell in cells}
        begins = {"parent": f"the {constrained(runs)} at the switch", "control": f"the {constrained(runs)} that was trained on instead"}
        through = " or ".join(text for kind, text in begins.items() if kind in kinds)
        samples = " or ".join(dict.fromkeys(f"{cell.details['samples']['train']:,}" for cell in cells if cell.details))
        spaced = " or ".join(dict.fromkeys(levels.spacing for levels in _levels(cells).values()))
        return sentences(
            f"Training loss on the plane through {through}, the projection of the trained relaxed network, and that network. x leads to "
            f"the projection, where the {constrained(runs)} could have gone as well, and y off the constraint; lengths are those of the "
            "matrices from inputs to outputs, the same on both axes."
            if through
            else "",
            "The random plane has the trained network in the middle, and two Gaussian directions in which every filter is as long as the "
            "network's (Li et al. 2018)."
            if "random" in kinds
            else "",
            f"Contours are {spaced}{f', on {samples} training samples' if samples else ''}, from the first seed.",
            "Batch-norm statistics are estimated afresh at every point." if any(map(_estimated_afresh, cells)) else "",
            *dict.fromkeys(told for cell in cells for told in _findings(cell, runs)),
        )


def _cells(runs: Sequence[FinishedRun]) -> list[Cell]:
    """Every plane of the branches that are shown, the kinds beside each other.

    Raises:
        NothingToDrawError: there is none.
    """
    found = []
    for shown in pictured(runs, "plane"):
        for kind in KINDS:
            arrays = {name.removeprefix(f"{kind}_"): seeds[0] for name, seeds in shown.arrays.items() if name.startswith(f"{kind}_")}
            if "train_loss" in arrays and np.isfinite(arrays["train_loss"]).any():
                found.append(Cell(shown=shown, kind=kind, arrays=arrays))
    if not found:
        msg = "the loss is finite nowhere on the planes of these runs; measure with a smaller --plane-margin or --plane-radius"
        raise NothingToDrawError(msg)
    return found


def _levels(cells: Sequence[Cell]) -> dict[str, Levels]:
    """Contours, the same for all planes of one kind of loss, by its label."""
    labels = dict.fromkeys(cell.run.loss_label() for cell in cells)
    return {label: Levels.of([cell.arrays["train_loss"] for cell in cells if cell.run.loss_label() == label]) for label in labels}


def _draw(panel: Axes, cell: Cell, levels: Levels, norm: BoundaryNorm) -> None:
    x, y = cell.arrays["x"], cell.arrays["y"]
    loss = np.ma.masked_invalid(cell.arrays["train_loss"])
    panel.contourf(x, y, loss, levels=levels.values, norm=norm, cmap="viridis", extend="both")
    if any(loss.min() < level < loss.max() for level in levels.values):
        panel.contour(x, y, loss, levels=levels.values, colors="white", linewidths=0.4)
    panel.set_aspect("equal")
    panel.grid(visible=False)
    network = cell.run.constrained
    marks = {
        "parent": f"{network} at the switch",
        "control": f"{network} continued",
        "projection": "projection",
        "network": "relaxed, trained",
    }
    if cell.kind == "random":
        places = {"network": (0.0, 0.0)}
    else:
        places = dict(zip((cell.kind, "projection", "network"), cell.arrays["corners"], strict=True))
        way = cell.arrays.get("trajectory")
        if way is not None:
            panel.plot(way[:, 1], way[:, 2], ".-", color=INK, markersize=3, linewidth=0.9, label="its training, projected")
    for name, (across, up) in places.items():
        fill = "white" if name == "network" else {"projection": "#e69f00"}.get(name, "#56b4e9")
        panel.plot(
            [across], [up], MARKS[name], color=fill, markeredgecolor=INK, markersize=5.5, linestyle="none", label=marks[name], zorder=5
        )
    labels = ("first direction", "second direction") if cell.kind == "random" else ("$x$: to the projection", "$y$: off the constraint")
    panel.set(xlabel=labels[0], ylabel=labels[1])
    panel.set_title(f"{cell.shown.title}{', random plane' if cell.kind == 'random' else ''}", loc="left")


def _estimated_afresh(cell: Cell) -> bool:
    """Whether there were batch-norm statistics that differ from those of training."""
    return any(plane.get("statistics_shift") != 0 for plane in cell.details.get("planes", {}).values() if "statistics_shift" in plane)


def _findings(cell: Cell, runs: Sequence[FinishedRun]) -> Iterator[str]:
    """How high the straight ways are, and what part of the training is in the plane, at the first and the last switch time."""
    if cell.kind == "random":
        return
    series = cell.shown.series
    found = {switch: group[0].scalars("plane", "end") for switch, group in series.branches.items()}
    heights = {switch: value for switch, scalars in found.items() if (value := scalars.get(f"barrier_{cell.kind}_network")) is not None}
    begins = {"parent": f"the {cell.run.constrained} at the switch", "control": f"the {cell.run.constrained} trained on"}[cell.kind]
    if heights:
        most = max(heights, key=lambda switch: heights[switch])
        unit = cell.run.results.objective.loss_unit
        over = f"a barrier of up to {heights[most]:.2g} {unit}".rstrip() + f" (t_w = {most:g})" if heights[most] > 1e-6 else "no barrier"
        yield f"{series.label(runs)}: straight between {begins} and the trained network there is {over}."
    shares = [value for scalars in found.values() if (value := scalars.get(f"trajectory_share_{cell.kind}")) is not None]
    if shares:
        told = " to ".join(dict.fromkeys(f"{share:.2g}" for share in (min(shares), max(shares))))
        yield f"{series.label(runs)}: of the squared length of the steps of training, {told} lies in the plane; the rest is not seen."
