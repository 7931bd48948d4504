from __future__ import annotations

from anarch_core.testing import DatasetConformance


class TestConformance(DatasetConformance):
    name = "mnist1d"
