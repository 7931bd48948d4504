from __future__ import annotations

from anarch_core.testing import ModelConformance


class TestConformance(ModelConformance):
    name = "rnn1d"
    input_shape = (1, 40)
    relaxation = "untie"


class TestLongShortTermMemory(ModelConformance):
    name = "rnn1d"
    options = {"cell": "lstm", "hidden": 7, "patch": 8}
    input_shape = (2, 40)
    relaxation = "untie"
