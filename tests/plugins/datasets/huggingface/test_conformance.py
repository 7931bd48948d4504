from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anarch_core.testing import DatasetConformance

datasets = pytest.importorskip("datasets")


class TestConformance(DatasetConformance):
    name = "huggingface"
    options = {"path": "digits"}

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # else what is missing is looked for again and again
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        x = np.random.default_rng(0).normal(size=(30, 1, 8)).astype(np.float32)
        datasets.Dataset.from_dict({"signal": x, "label": np.arange(30) % 3}).with_format("numpy").save_to_disk(str(tmp_path / "digits"))
        self.root = tmp_path
