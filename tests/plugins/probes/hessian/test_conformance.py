from __future__ import annotations

from anarch_core.testing import FigureConformance, ProbeConformance


class TestConformance(ProbeConformance):
    name = "hessian"


class TestFigure(FigureConformance):
    name = "spectrum-time"
    settings = {"probe_at": "1", "branch_epochs": 2}
    probe_options = {"hessian": {"subspaces": ("shared", "unshared", "off-local")}}
