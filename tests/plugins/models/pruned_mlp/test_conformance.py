from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "pruned-mlp"
    input_shape = (1, 40)
    relaxation = "unmask"
