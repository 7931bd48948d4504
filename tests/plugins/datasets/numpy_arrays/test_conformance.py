from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anarch_core.testing import DatasetConformance


class TestConformance(DatasetConformance):
    name = "numpy"
    options = {"path": "digits.npz"}

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / "digits.npz", x=images, y=np.arange(30) % 3)
        self.root = tmp_path
