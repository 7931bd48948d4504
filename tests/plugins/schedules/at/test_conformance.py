from __future__ import annotations

from anarch_core.testing import ScheduleConformance


class TestConformance(ScheduleConformance):
    name = "at"
    options = {"moments": ("0", "3it", "2ep")}
