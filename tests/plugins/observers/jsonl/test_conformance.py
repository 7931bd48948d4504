from __future__ import annotations

from anarch_core.testing import ObserverConformance


class TestConformance(ObserverConformance):
    name = "jsonl"


class TestElsewhere(ObserverConformance):
    name = "jsonl"
    options = {"path": "logs/told.jsonl"}
