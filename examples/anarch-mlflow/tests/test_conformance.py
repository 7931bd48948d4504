"""What anarch promises of every observer."""

from __future__ import annotations

import pytest

from anarch_core.testing import ObserverConformance


class TestConformance(ObserverConformance):
    name = "mlflow"

    @pytest.fixture(autouse=True)
    def _there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        pytest.importorskip("mlflow")
