from __future__ import annotations

from anarch_core.testing import ObjectiveConformance


class TestConformance(ObjectiveConformance):
    name = "pixel-cross-entropy"


class TestSmoothedAndIgnoring(ObjectiveConformance):
    name = "pixel-cross-entropy"
    options = {"label_smoothing": 0.1, "ignore": 2}
