"""What the figure ``ntk`` draws of numbers that are known."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.report import FinishedRun
from anarch_core.testing import FigureConformance
from anarch_plugins.probes.ntk.figure import Ntk


class TestFigure(FigureConformance):
    name = "ntk"

    def test_lines_are_the_scalars(self, sample) -> None:
        run = changed(sample.measured, lambda kind, moment: {"alignment": 0.2 if kind == "continued" else 0.5, "alignment_parent": 0.3})
        left, right = Ntk().draw([run]).axes
        assert labelled(left, "all directions") == {0.5}
        assert labelled(left, "CNN before the switch") == {0.3}
        assert labelled(left, "CNN continued") == {0.2}
        shares = [labelled(right, name) for name in ("shared", "unshared", "off-local")]
        assert all(shares)
        caption = Ntk().caption([run])
        assert "is 0.500 at the switch" in caption
        assert "(0.300 before it) and 0.500 after training." in caption
        assert Ntk().findings(run.series[0])[0].startswith("The kernel's alignment")

    def test_what_does_not_compare_is_not_drawn(self, sample) -> None:
        run = changed(sample.measured, lambda kind, moment: {"alignment_parent": None})
        left, _ = Ntk().draw([run]).axes
        assert not labelled(left, "CNN before the switch")
        assert not labelled(left, "CNN continued")


def changed(run: FinishedRun, scalars: Any) -> FinishedRun:
    """The run with other numbers."""
    segments = []
    for segment in run.results.segments:
        found = {moment: {**told, **scalars(segment.kind, moment)} for moment, told in segment.probes.get("ntk", {}).items()}
        segments.append(attrs.evolve(segment, probes={"ntk": found} if found else {}))
    return attrs.evolve(run, results=attrs.evolve(run.results, segments=tuple(segments)))


def labelled(axes: Any, label: str) -> set[float]:
    """Heights of the points of a line, by its label."""
    return {
        round(float(height), 6)
        for container, name in zip(*axes.get_legend_handles_labels(), strict=True)
        if name == label
        for height in container.lines[0].get_ydata()
    }
