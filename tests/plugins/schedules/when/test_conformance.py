from __future__ import annotations

from anarch_core.testing import ScheduleConformance


class TestConformance(ScheduleConformance):
    name = "when"
    options = {"condition": "hessian.lambda_max > 20", "times": None}


class TestConformanceOnTheValidationPart(ScheduleConformance):
    name = "when"
    options = {"condition": "validation_loss rises", "epochs": 2}
