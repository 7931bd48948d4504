from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "cka"


class TestSeveral(ProbeConformance):
    name = "cka"
    options = {"against": ("parent", "reference"), "part": "train", "samples": 30, "batch_size": 10}


class TestCka(FigureConformance):
    name = "cka"


class TestSeveralPanels(FigureConformance):
    name = "cka"
    probe_options = {"cka": {"against": ("parent",), "samples": 8, "batch_size": 4}}


class TestRelatives(ProbeConformance):
    name = "cka"
    options = {"against": ("control", "twin", "sibling"), "samples": 10}
