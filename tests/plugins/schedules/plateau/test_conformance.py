from __future__ import annotations

from anarch_core.testing import ScheduleConformance


class TestConformance(ScheduleConformance):
    name = "plateau"
