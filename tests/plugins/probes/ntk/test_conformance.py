from __future__ import annotations

from anarch_core.testing import ProbeConformance


class TestConformance(ProbeConformance):
    name = "ntk"
