from __future__ import annotations

from anarch_core.testing import OptimizerConformance


class TestConformance(OptimizerConformance):
    name = "sgd"


class TestMomentum(OptimizerConformance):
    name = "sgd"
    options = {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}
