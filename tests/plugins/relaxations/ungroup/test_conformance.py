from __future__ import annotations

from anarch_core.testing import RelaxationConformance


class TestConformance(RelaxationConformance):
    name = "ungroup"
