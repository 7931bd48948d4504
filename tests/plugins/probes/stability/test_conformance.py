from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "stability"
    options = {"points": 3}


class TestFigure(FigureConformance):
    name = "stability"
    probe_options = {"stability": {"points": 3}}
    settings = {"noise_seeds": "0,1"}
