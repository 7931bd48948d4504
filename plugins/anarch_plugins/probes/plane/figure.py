"""Contours of the loss on planes through and around the relaxed network (Garipov et al. 2018, Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from anarch_core.report import (
    CONTROL,
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

COLOURS = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.88, 256)))
"""From low to high, leaving out the end of the map that paper swallows."""

MARKS = {"parent": ("s", "#56b4e9"), "control": ("s", CONTROL), "projection": ("D", "#e69f00"), "network": ("o", "white")}


@attrs.frozen(kw_only=True)
class Cell:
    """One plane of one branch.

    Attributes:
        shown: the branch.
        kind: of plane, as the option ``through`` of the probe names it.
        title: of its panel; where there are several planes of a branch, the first has the branch above it.
        arrays: of the first seed that has them, by the names that the probe gives them after the kind.
    """

    shown: Pictured
    kind: str
    title: str
    arrays: Mapping[str, Array]

    @property
    def run(self) -> FinishedRun:
        """That it belongs to."""
        return self.shown.series.run

    @property
    def loss(self) -> Array:
        """In training, [y, x]."""
        return self.arrays["train_loss"]

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
        for cell, panel in zip(cells, panels, strict=False):
            _draw(panel, cell, [other.loss for other in cells if _scale(other) == _scale(cell)])
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What the planes are, how contours are spaced, and how much of the way is seen."""
        cells = _cells(runs)
        kinds = {cell.kind for cell in cells}
        begins = {"parent": f"the {constrained(runs)} at the switch", "control": f"the {constrained(runs)} that was trained on instead"}
        through = " or ".join(text for kind, text in begins.items() if kind in kinds)
        samples = " or ".join(dict.fromkeys(f"{cell.details['samples']['train']:,}" for cell in cells if cell.details))
        spaced = " or ".join(dict.fromkeys(Levels.of([cell.loss]).spacing for cell in cells))
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
            "Colours compare, on all planes through networks and on all random ones.",
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
        network = shown.series.run.constrained
        kinds = {"parent": f"through the {network} at the switch", "control": f"through the {network} continued", "random": "at random"}
        planes = {
            kind: {name.removeprefix(f"{kind}_"): seeds[0] for name, seeds in shown.arrays.items() if name.startswith(f"{kind}_")}
            for kind in kinds
        }
        known = [kind for kind, arrays in planes.items() if "train_loss" in arrays and np.isfinite(arrays["train_loss"]).any()]
        for kind in known:
            lines = [shown.title] if kind == known[0] else []
            lines += [kinds[kind]] if len(known) > 1 else []
            found.append(Cell(shown=shown, kind=kind, title="\n".join(lines), arrays=planes[kind]))
    if not found:
        msg = "the loss is finite nowhere on the planes of these runs; measure with a smaller --plane-margin or --plane-radius"
        raise NothingToDrawError(msg)
    return found


def _scale(cell: Cell) -> tuple[str, bool]:
    """What planes have in common whose colours are alike: the kind of loss, and whether they are random."""
    return cell.run.loss_label(), cell.kind == "random"


def _draw(panel: Axes, cell: Cell, alike: Sequence[Array]) -> None:
    """Contours, with colours that compare those of the planes that are alike, and the networks."""
    loss, levels = np.ma.masked_invalid(cell.loss), Levels.of([cell.loss]).within(cell.loss)
    if levels:
        lines = panel.contour(
            cell.arrays["x"], cell.arrays["y"], loss, levels=levels, norm=Levels.of(alike).norm(), cmap=COLOURS, linewidths=1.0
        )
        panel.clabel(lines, fontsize=6.5, fmt="{:.3g}".format)
    panel.set_aspect("equal")
    panel.grid(visible=False)
    network = cell.run.constrained
    labels = {
        "parent": f"{network} at the switch",
        "control": f"{network} continued",
        "projection": "projection",
        "network": "relaxed, trained",
    }
    names = ("network",) if cell.kind == "random" else (cell.kind, "projection", "network")
    for name, (across, up) in zip(names, cell.arrays.get("corners", np.zeros((1, 2))), strict=True):
        marker, colour = MARKS[name]
        panel.plot(
            [across], [up], marker, color=colour, markeredgecolor=INK, markersize=5.5, linestyle="none", label=labels[name], zorder=5
        )
    if (way := cell.arrays.get("trajectory")) is not None:
        panel.plot(way[:, 1], way[:, 2], ".-", color=INK, markersize=3, linewidth=0.9, label="its training, projected")
    axes = ("first direction", "second direction") if cell.kind == "random" else ("$x$: to the projection", "$y$: off the constraint")
    panel.set(xlabel=axes[0], ylabel=axes[1])
    panel.set_title(cell.title, loc="left")


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
