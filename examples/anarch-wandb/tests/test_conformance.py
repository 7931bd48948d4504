"""What anarch promises of every observer."""

from __future__ import annotations

import pytest

from anarch_core.testing import ObserverConformance


class TestConformance(ObserverConformance):
    name = "wandb"

    @pytest.fixture(autouse=True)
    def _there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
