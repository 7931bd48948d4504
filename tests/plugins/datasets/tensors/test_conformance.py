from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anarch_core.testing import DatasetConformance


class TestConformance(DatasetConformance):
    name = "tensors"
    options = {"path": "signals.safetensors"}

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        x = torch.randn(30, 1, 8, generator=torch.Generator().manual_seed(0))
        save_file({"x": x, "y": torch.arange(30) % 3}, tmp_path / "signals.safetensors")
        self.root = tmp_path
