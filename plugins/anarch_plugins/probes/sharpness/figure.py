"""How sharp the loss is, by switch time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from anarch_core.report import (
    MOMENTS,
    SERIES,
    AbstractFigure,
    FinishedRun,
    constrained,
    equal_axes,
    grid,
    legend,
    over_seeds,
    quantity,
    require_probes,
    sentences,
    styled,
)
from anarch_plugins.probes.sharpness.wording import DEFINITIONS, DIRECTIONS, LENGTHS, Number, numbers_in

LABELS = {"average": "average", "worst": "worst", "sam": "SAM"}
KINDS = {"plain": "", "adaptive": "adaptive ", "filter": "filter "}


class Sharpness(AbstractFigure):
    """How sharp the loss is."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """A column for each definition and a row for each kind of length, each of the largest radius that was measured.

        Raises:
            NothingToDrawError: the probe sharpness was not run.
        """
        require_probes(runs, "sharpness")
        rows = [(run, together) for run in runs for together in _panels(run)]
        figure, axes = grid(len(rows), max(len(together) for _, together in rows), narrow=narrow, height=1.75)
        for (run, together), cells in zip(rows, axes, strict=True):
            colours = {series.relaxation: SERIES[index % len(SERIES)] for index, series in enumerate(run.series)}
            for cell in cells[len(together) :]:
                cell.set_axis_off()
            for number, panel in zip(together, cells, strict=False):
                quantity("sharpness", number.name, _label(number))(panel, run, colours)
                if len(runs) > 1:
                    panel.set_title(run.label, loc="left")
        equal_axes([panel for panel in figure.axes if panel.has_data()])
        legend(figure)
        return figure

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What each definition is, and what radii are relative to."""
        shown = [number for run in runs for together in _panels(run) for number in together]
        every = [segment.details("sharpness", moment) for run in runs for segment in run.segments("branch") for moment in MOMENTS]
        samples = sorted({f"{found['samples']:,}" for found in every if found})
        network = constrained(runs)
        return sentences(
            f"Rise of the training loss L near the weights w, over {' or '.join(samples) or 'some'} samples in evaluation mode, against "
            "switch time.",
            *(
                f"{LABELS[word][0].upper()}{LABELS[word][1:]}: {_typeset(DEFINITIONS[word])}."
                for word in LABELS
                if any(n.definition == word for n in shown)
            ),
            *(
                f"{kind.strip().capitalize() or 'Plain'} lengths are {_typeset(LENGTHS[word])}."
                for word, kind in KINDS.items()
                if any(number.lengths == word for number in shown)
            ),
            f"Perturbations are of {_typeset(DIRECTIONS['_shared'])}, where a {network} and its relaxation are equal at the switch."
            if any(number.directions for number in shown)
            else f"Perturbations are of {_typeset(DIRECTIONS[''])}.",
            _sampling(every, shown),
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds, those of horizontal lines at the right end"),
        )


def _panels(run: FinishedRun) -> list[list[Number]]:
    """What is shown: for each kind of length the definitions, of the largest radius, along shared directions where these were measured."""
    found = [segment.scalars("sharpness", moment) for segment in run.segments("branch") for moment in MOMENTS]
    measured = {number for scalars in found for number in numbers_in(scalars)}
    known = {number for scalars in found for number in numbers_in(scalars) if scalars[number.name] is not None} or measured
    shared = {number for number in known if number.directions} or known
    rows = []
    for lengths in KINDS:
        groups = ([number for number in shared if (number.lengths, number.definition) == (lengths, word)] for word in LABELS)
        rows.append([max(group, key=lambda number: number.radius) for group in groups if group])
    return [row for row in rows if row]


def _label(number: Number) -> str:
    symbol = r"\sigma" if number.definition == "average" else r"\rho"
    return rf"{KINDS[number.lengths]}{LABELS[number.definition]}, ${symbol} = {number.radius:g}$"


def _typeset(text: str) -> str:
    return text.replace(" - ", " \u2212 ").replace(" -d", " \u2212d").replace("n^(1/2)", "n^½")


def _sampling(found: Sequence[Mapping[str, Any]], shown: Sequence[Number]) -> str:
    """How well averages are known; empty where there are none."""
    names = {number.name for number in shown if number.definition == "average"}
    averages = [details[name] for details in found for name in names if "standard_error" in details.get(name, {})]
    errors = [each["standard_error"] / abs(each["value"]) for each in averages if each["value"]]
    return f"The standard error of an average over its draws is {statistics.median(errors):.2g} of it (median)." if errors else ""
