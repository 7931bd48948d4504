from __future__ import annotations

from anarch_core.testing.component import ComponentConformance


class TestConformance(ComponentConformance):
    kind = "workers"
    name = "ray"
