"""Data sets of torchvision: read where they are, one line where they are not.

The real CIFAR-10 is tested where ``ANARCH_DATA`` names a folder that holds ``cifar-10-batches-py``; nothing is ever downloaded.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anarch_core.data import load_data
from anarch_core.errors import DataError, MissingDependencyError

datasets = pytest.importorskip("torchvision.datasets", exc_type=Exception)

CIFAR = Path(os.environ.get("ANARCH_DATA", "")) / "cifar-10-batches-py"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        msg = "no route to host"
        raise OSError(msg)

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def write_mnist(folder: Path, train: int = 12, test: int = 5) -> None:
    """The four official files, uncompressed and small, where torchvision looks for them."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.mark.usefixtures("offline")
def test_data_that_are_there_are_read_without_a_connection(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = load_data("mnist", root=tmp_path)
    assert data.x_train.shape == (12, 1, 28, 28)
    assert data.y_test.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(data.x_train.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("offline")
def test_the_own_folder_of_a_data_set_is_taken_for_its_root(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert load_data("mnist", root=tmp_path / "MNIST").digest() == load_data("mnist", root=tmp_path).digest()


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'cifar10': the folder '.*nowhere' does not exist"):
        load_data("cifar10", root=tmp_path / "nowhere")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("mnist", "MNIST"),
        ("fashion-mnist", "FashionMNIST"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_data_that_are_neither_there_nor_to_be_had(tmp_path: Path, name: str, entry: str) -> None:
    with pytest.raises(DataError, match=f"data '{name}': looked for '.*{entry}'.*no route to host.*--data-root") as caught:
        load_data(name, root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_damaged_file_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(DataError, match=r"data 'mnist': .* missing or damaged"):
        load_data("mnist", root=tmp_path)


def test_torchvision_that_does_not_load_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        msg = "operator torchvision::nms does not exist"
        raise RuntimeError(msg)

    monkeypatch.setattr("anarch_plugins.vision.importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(
        MissingDependencyError, match=r"built for another torch than .* \(operator torchvision::nms does not exist\).*pip install"
    ) as caught:
        load_data("cifar10", root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not CIFAR.is_dir(), reason="ANARCH_DATA names no folder with cifar-10-batches-py")
def test_real_cifar10() -> None:
    data = load_data("cifar10", root=CIFAR.parent)
    assert data.x_train.shape == (50_000, 3, 32, 32)
    assert data.x_test.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.y_train).tolist() == [5000] * 10
    assert torch.bincount(data.y_test).tolist() == [1000] * 10
    assert data.class_names[3] == "cat"
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.x_train.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    # Channels come first, and the first training image is the published one: a frog, whose first pixel is (59, 62, 63).
    torch.testing.assert_close(data.x_train[0, :, 0, 0], (torch.tensor([59.0, 62, 63]) - MEAN) / DEVIATION, atol=2e-3, rtol=0)
    assert data.class_names[data.y_train[0]] == "frog"


MEAN = 255 * torch.tensor([0.4914, 0.4822, 0.4465])
DEVIATION = 255 * torch.tensor([0.2470, 0.2435, 0.2616])
