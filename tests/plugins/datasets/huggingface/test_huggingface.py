"""Data sets of Hugging Face, from folders: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anarch_core.data import load_data
from anarch_core.data.gathering import gathered
from anarch_core.errors import DataError

datasets = pytest.importorskip("datasets")

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
FEATURES = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "fine": datasets.Value("int64")})


def split(count: int = 20) -> Any:
    pictures = [Image.fromarray(pixels) for pixels in PIXELS[:count]]
    table = {"img": pictures, "label": [i % 2 for i in range(count)], "fine": [i % 5 for i in range(count)]}
    return datasets.Dataset.from_dict(table, features=FEATURES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.DatasetDict({"train": split(), "validation": split(6), "test": split(8)}).save_to_disk(str(tmp_path / "pets"))
    return tmp_path / "pets"


def test_a_folder_of_save_to_disk(saved: Path) -> None:
    data = load_data(f"huggingface:{saved}")
    assert (data.input_shape, data.classes, data.class_names) == ((3, 6, 5), 2, ("cat", "dog"))
    assert data.y_validation is not None
    assert (len(data.y_train), len(data.y_validation), len(data.y_test)) == (20, 6, 8)
    expected = torch.from_numpy(PIXELS).movedim(3, 1).double()
    mean = expected.mean((0, 2, 3), keepdim=True)
    deviation = expected.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(data.x_train.double(), (expected - mean) / deviation, atol=1e-5, rtol=1e-5)


def test_splits_and_columns_by_name(saved: Path) -> None:
    data = load_data(f"huggingface:{saved}", options={"train": "test", "test": "train", "label": "fine", "image": "img"})
    assert (len(data.y_train), len(data.y_test), data.classes, data.class_names) == (8, 20, 5, ())


def test_one_split_has_a_part_held_out(tmp_path: Path) -> None:
    split().save_to_disk(str(tmp_path / "one"))
    data = load_data("huggingface:one", root=tmp_path, options={"test_fraction": 0.25})
    assert (len(data.y_train), len(data.y_test)) == (15, 5)


def test_a_folder_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pets").mkdir()
    for name in ("train", "test"):
        split().to_parquet(str(tmp_path / "pets" / f"{name}.parquet"))
    data = load_data(f"huggingface:{tmp_path / 'pets'}")
    assert (data.input_shape, data.class_names, len(data.y_test)) == ((3, 6, 5), ("cat", "dog"), 20)


def test_splits_from_a_factory(saved: Path) -> None:
    from_factory = gathered("mine", datasets.load_from_disk(str(saved)))
    named = load_data(f"huggingface:{saved}")
    assert from_factory.digest() == named.digest()
    assert from_factory.class_names == named.class_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "dev"}, r"has no split 'dev' \(it has train, validation, test\); choose one: --huggingface-test NAME"),
        ({"label": "colour"}, r"has no column 'colour' \(it has img, label, fine\); choose one: --huggingface-label NAME"),
    ],
)
def test_what_is_refused(saved: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"huggingface:{saved}", options=options)


def test_a_folder_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"in the folder .* no data set could be read: ") as caught:
        load_data(f"huggingface:{tmp_path / 'empty'}")
    assert "\n" not in str(caught.value)
