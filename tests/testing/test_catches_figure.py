"""A wrong figure is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anarch_core.report import AbstractFigure, Table, each_run, grid, points, probed, require_probes, styled
from anarch_core.testing import FigureConformance

Kit = Callable[..., Any]


class Unshared(AbstractFigure):
    """What every probe gives: a correct figure."""

    @styled
    def draw(self, runs: Any, *, narrow: bool = False) -> Any:
        require_probes(runs, "delta")

        def panel(axes: Any, run: Any, colours: Any) -> None:
            for series in run.series:
                found = {switch: probed(group, "delta", "end", "unshared") for switch, group in series.branches.items()}
                points(axes, list(found), list(found.values()), color=colours[series.relaxation], label=series.relaxation)

        return each_run(runs, [panel], narrow=narrow)

    def caption(self, runs: Any) -> str:
        return "The unshared part."


def drawing(figure: type, **methods: Any) -> type:
    return type("Figure", (figure,), methods)


def _blank(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    return grid(1, 1, narrow=narrow)[0]


def _first_run(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    figure, [[axes]] = grid(1, 1, narrow=narrow)
    axes.plot([segment.scalars("delta", "end")["unshared"] for run in runs for segment in run.segments("branch")])
    return figure


def _with_settings(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    import matplotlib as mpl

    mpl.rcParams["font.size"] = 6
    return Unshared.draw(self, runs, narrow=narrow)


@pytest.fixture(scope="module")
def drawable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs with the probe delta, and without."""
    return type("TestDeviation", (FigureConformance,), {"name": "deviation"})().sample(tmp_path_factory.mktemp("drawable"))


@pytest.mark.parametrize(
    ("record", "methods", "check", "message"),
    [
        ({"needs": ("delat",)}, {}, "test_needs_are_probes", "`needs` names delat, which no installed plugin provides"),
        ({}, {"draw": _blank}, "test_is_drawn_wide_and_narrow", "there is nothing in its panels; name all probes that it shows"),
        (
            {},
            {"draw": _first_run},
            "test_runs_stand_side_by_side",
            "of two runs it raised PluginError: figure 'wrong' .*KeyError: 'unshared'; draw what there is",
        ),
        ({}, {"caption": lambda self, runs: ""}, "test_has_a_caption", "the caption is a text of full sentences: ''"),
        (
            {"needs": ()},
            {"draw": _first_run},
            "test_says_what_is_missing",
            "on a run without probes it raised PluginError: figure 'wrong' .*KeyError.*in `needs`",
        ),
        ({}, {"draw": _with_settings}, "test_leaves_settings_of_matplotlib_alone", "drawing changed the settings font.size; decorate"),
        ({}, {"draw": Unshared.draw.__wrapped__}, "test_leaves_settings_of_matplotlib_alone", "not the same figure under other settings"),
        ({}, {"findings": lambda self, series: "It went."}, "test_what_it_says_is_valid", "gives a list of full sentences"),
        (
            {},
            {"tables": lambda self, run: [Table(caption="Drift", headings=["layer", "δ"], rows=[["first"]])]},
            "test_what_it_says_is_valid",
            "Drift: 1 cells under 2 headings",
        ),
    ],
)
def test_a_wrong_figure(fails: Kit, passes: Kit, plugin: Kit, drawable: Any, record: Any, methods: Any, check: str, message: str) -> None:
    arguments = [drawable] if check != "test_needs_are_probes" else []
    plugin("figure", drawing(Unshared, **methods), **{"title": "Wrong", "needs": ("delta",)} | record)
    fails(FigureConformance, check, message, *arguments)
    plugin("figure", Unshared, title="Right", needs=("delta",))
    passes(FigureConformance, check, *arguments)
