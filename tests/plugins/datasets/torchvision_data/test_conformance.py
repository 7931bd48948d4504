from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from anarch_core.testing import DatasetConformance

pytest.importorskip("torchvision", exc_type=Exception)


def refuse(*args: object, **kwargs: object) -> None:
    msg = "no route to host"
    raise OSError(msg)


class TestMnist(DatasetConformance):
    name = "mnist"

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("urllib.request.urlopen", refuse)
        raw = tmp_path / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for prefix, count in (("train", 20), ("t10k", 10)):
            images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
        self.root = tmp_path / "data"
