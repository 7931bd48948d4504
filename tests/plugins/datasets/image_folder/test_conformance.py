from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anarch_core.testing import DatasetConformance


class TestConformance(DatasetConformance):
    name = "image-folder"
    options = {"size": 8}

    @pytest.fixture(autouse=True)
    def _images(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        for part, count in (("train", 4), ("test", 2)):
            for name in ("cats", "dogs"):
                folder = tmp_path / "images" / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    Image.fromarray(generator.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        self.root = tmp_path / "images"
