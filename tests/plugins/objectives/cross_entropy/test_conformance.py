from __future__ import annotations

from anarch_core.testing import ObjectiveConformance


class TestConformance(ObjectiveConformance):
    name = "cross-entropy"


class TestSmoothed(ObjectiveConformance):
    name = "cross-entropy"
    options = {"label_smoothing": 0.1}
