"""Figures and one page about finished runs.

A door for authors of figures: the interface, what runs hold, and how figures look. Nothing here imports torch; matplotlib is imported
when something that draws is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.summary import number
from anarch_core.lazy import lazy_names
from anarch_core.report.arrays import Pictured, pictured
from anarch_core.report.between import course, measured_between
from anarch_core.report.catalogue import figures
from anarch_core.report.evidence import (
    FinishedRun,
    NothingToDrawError,
    Series,
    all_series,
    by_switch,
    history,
    probed,
    require_probes,
    score,
    some,
    switches,
    why_missing,
)
from anarch_core.report.figure import AbstractFigure, Table
from anarch_core.report.spread import Spread
from anarch_core.report.text import constrained, difference, in_units, names, over_seeds, sentences

if TYPE_CHECKING:
    from anarch_core.report.figures.images import LOG_WEIGHT, image_limits, log_weights, panel_title
    from anarch_core.report.figures.quantity import quantity
    from anarch_core.report.figures.style import (
        CONTINUED,
        CONTROL,
        INK,
        MOMENTS,
        NARROW,
        SERIES,
        SWITCH_TIME,
        WHEN,
        WIDE,
        Panel,
        control,
        each_run,
        equal_axes,
        grid,
        legend,
        level,
        log_axis,
        points,
        styled,
        time_axis,
        time_bar,
        time_colours,
    )

__all__ = [
    "CONTINUED",
    "CONTROL",
    "INK",
    "LOG_WEIGHT",
    "MOMENTS",
    "NARROW",
    "SERIES",
    "SWITCH_TIME",
    "WHEN",
    "WIDE",
    "AbstractFigure",
    "FinishedRun",
    "NothingToDrawError",
    "Panel",
    "Pictured",
    "SegmentResult",
    "Series",
    "Spread",
    "Table",
    "all_series",
    "by_switch",
    "constrained",
    "control",
    "course",
    "difference",
    "each_run",
    "equal_axes",
    "figures",
    "grid",
    "history",
    "image_limits",
    "in_units",
    "legend",
    "level",
    "log_axis",
    "log_weights",
    "measured_between",
    "names",
    "number",
    "over_seeds",
    "panel_title",
    "pictured",
    "points",
    "probed",
    "quantity",
    "require_probes",
    "score",
    "sentences",
    "some",
    "styled",
    "switches",
    "time_axis",
    "time_bar",
    "time_colours",
    "why_missing",
]

_IMAGES = ("LOG_WEIGHT", "image_limits", "log_weights", "panel_title")
_STYLE = (
    "CONTINUED",
    "CONTROL",
    "INK",
    "MOMENTS",
    "NARROW",
    "SERIES",
    "SWITCH_TIME",
    "WHEN",
    "WIDE",
    "Panel",
    "control",
    "each_run",
    "equal_axes",
    "grid",
    "legend",
    "level",
    "log_axis",
    "points",
    "styled",
    "time_axis",
    "time_bar",
    "time_colours",
)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(_IMAGES, "anarch_core.report.figures.images"),
        **dict.fromkeys(_STYLE, "anarch_core.report.figures.style"),
        "quantity": "anarch_core.report.figures.quantity",
    },
)
