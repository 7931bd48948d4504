from __future__ import annotations

from anarch_core.testing import ScheduleConformance


class TestConformance(ScheduleConformance):
    name = "plateau"


class TestConformanceOfAnotherColumn(ScheduleConformance):
    name = "plateau"
    options = {"patience": 3, "column": "hessian.lambda_max", "mode": "max"}
