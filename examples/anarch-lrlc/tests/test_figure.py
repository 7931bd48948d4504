"""The figure ``sharing-spectrum`` shows what the probe measured."""

from __future__ import annotations

import pytest

from anarch_core.testing import FigureConformance
from anarch_lrlc.figure import SharingSpectrum


class Runs(FigureConformance):
    """Makes the runs."""

    name = "sharing-spectrum"
    relaxation = "lrlc"


def test_lines_are_the_spectra_over_their_largest_value(tmp_path):
    run = Runs().sample(tmp_path).measured
    panels = [axes for axes in SharingSpectrum().draw([run]).axes if axes.get_xlabel() == "singular value"]
    [series] = run.series
    for switch, [branch] in series.branches.items():
        spectra = run.tensors(branch, "sharing-rank", "end")
        assert [panel.get_title(loc="left") for panel in panels] == [f"lrlc, {layer}" for layer in spectra]
        for panel, values in zip(panels, spectra.values(), strict=True):
            line = panel.lines[list(series.branches).index(switch)]
            assert line.get_ydata() == pytest.approx(values / values[0])
    [finding] = SharingSpectrum().findings(series)
    assert "effective rank of 1.0" in finding
