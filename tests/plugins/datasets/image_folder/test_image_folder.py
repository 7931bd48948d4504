"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anarch_core.data import load_data
from anarch_core.errors import DataError, OutOfMemoryError

pytest.importorskip("torchvision", exc_type=Exception)

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write_images(folder: Path, per_class: int = 2) -> None:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((5 + number, 9, 3), colour, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "train", per_class=3)
    write_images(tmp_path / "test", per_class=1)
    return tmp_path


def test_images_of_one_size_with_labels_by_folder(root: Path) -> None:
    data = load_data("image-folder:8", root=root)
    assert data.x_train.shape == (6, 3, 8, 8)
    assert data.x_test.shape == (2, 3, 8, 8)
    assert data.class_names == ("blue", "red")
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1]


def test_channels_are_red_green_blue_and_normalised(root: Path) -> None:
    data = load_data("image-folder:8", root=root)
    assert torch.equal(data.x_test[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(data.x_test[1, :, 0, 0], torch.tensor([1.0, 0.0, -1.0]))


def test_grey_images_become_colour_images(root: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(root / "train" / "red" / "grey.png")
    assert load_data("image-folder:8", root=root).x_train.shape == (7, 3, 8, 8)


def test_val_stands_in_for_test(root: Path) -> None:
    (root / "test").rename(root / "val")
    assert len(load_data("image-folder:8", root=root).y_test) == 2


def test_folder_must_be_named() -> None:
    with pytest.raises(DataError, match="--data-root"):
        load_data("image-folder")


def test_missing_parts(root: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder '.*nowhere/train'"):
        load_data("image-folder", root=root / "nowhere")
    (root / "test").rename(root / "tests")
    with pytest.raises(DataError, match=r"there is no folder '.*test'; image-folder needs train/ and test/ \(or val/\)"):
        load_data("image-folder", root=root)


def test_empty_and_differing_classes(root: Path) -> None:
    (root / "train" / "green").mkdir()
    with pytest.raises(DataError, match=r"no classes in .*green"):
        load_data("image-folder", root=root)
    Image.new("RGB", (3, 3)).save(root / "train" / "green" / "0.png")
    with pytest.raises(DataError, match="same class folders; only one has green"):
        load_data("image-folder", root=root)


def test_damaged_image_is_named(root: Path) -> None:
    (root / "train" / "red" / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read the image '.*red/1\.png'"):
        load_data("image-folder", root=root)


def test_too_many_pixels_are_refused_before_reading(root: Path) -> None:
    (root / "train" / "red" / "1.png").write_bytes(b"never read")
    with pytest.raises(OutOfMemoryError, match=r"8 images of 1000000 x 1000000 take 120000\.0 GB") as caught:
        load_data("image-folder:1000000", root=root)
    assert caught.value.needed == 8 * 3 * 10**12 * 5
