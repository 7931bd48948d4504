"""Figures and one page about finished runs.

A door for authors of figures: the interface, what runs hold, and how figures look. Nothing here imports torch; matplotlib is imported
when something that draws is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.summary import number
from anarch_core.lazy import lazy_names
from anarch_core.report.catalogue import figures
from anarch_core.report.evidence import (
    FinishedRun,
    NothingToDrawError,
    Series,
    Spread,
    all_series,
    by_switch,
    history,
    probed,
    require_probes,
    score,
    some,
    switches,
)
from anarch_core.report.figure import AbstractFigure, Table
from anarch_core.report.text import over_seeds, percent, sentences

if TYPE_CHECKING:
    from anarch_core.report.figures.images import LOG_WEIGHT, image_limits, log_weights, panel_title
    from anarch_core.report.figures.style import (
        CONTROL,
        INK,
        NARROW,
        SERIES,
        SWITCH_TIME,
        TEST_ACCURACY,
        TRAINING_LOSS,
        WIDE,
        Panel,
        each_run,
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
    "CONTROL",
    "INK",
    "LOG_WEIGHT",
    "NARROW",
    "SERIES",
    "SWITCH_TIME",
    "TEST_ACCURACY",
    "TRAINING_LOSS",
    "WIDE",
    "AbstractFigure",
    "FinishedRun",
    "NothingToDrawError",
    "Panel",
    "SegmentResult",
    "Series",
    "Spread",
    "Table",
    "all_series",
    "by_switch",
    "each_run",
    "figures",
    "grid",
    "history",
    "image_limits",
    "legend",
    "level",
    "log_axis",
    "log_weights",
    "number",
    "over_seeds",
    "panel_title",
    "percent",
    "points",
    "probed",
    "require_probes",
    "score",
    "sentences",
    "some",
    "styled",
    "switches",
    "time_axis",
    "time_bar",
    "time_colours",
]

_IMAGES = ("LOG_WEIGHT", "image_limits", "log_weights", "panel_title")
_STYLE = (
    "CONTROL",
    "INK",
    "NARROW",
    "SERIES",
    "SWITCH_TIME",
    "TEST_ACCURACY",
    "TRAINING_LOSS",
    "WIDE",
    "Panel",
    "each_run",
    "figures",
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
    {**dict.fromkeys(_IMAGES, "anarch_core.report.figures.images"), **dict.fromkeys(_STYLE, "anarch_core.report.figures.style")},
)
