from __future__ import annotations

from anarch_core.testing import ObjectiveConformance


class TestConformance(ObjectiveConformance):
    name = "bce"
