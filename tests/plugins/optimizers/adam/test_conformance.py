from __future__ import annotations

from anarch_core.testing import OptimizerConformance


class TestAdam(OptimizerConformance):
    name = "adam"


class TestAdamw(OptimizerConformance):
    name = "adamw"
