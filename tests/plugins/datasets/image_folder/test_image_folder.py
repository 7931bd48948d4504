"""Folders of images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from anarch_core.data import load_data
from anarch_core.errors import DataError, OutOfMemoryError

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
    with pytest.raises(DataError, match=r"no images in the class folder .*green"):
        load_data("image-folder", root=root)
    Image.new("RGB", (3, 3)).save(root / "train" / "green" / "0.png")
    with pytest.raises(DataError, match="same class folders; only one has green"):
        load_data("image-folder", root=root)


def test_damaged_image_is_named(root: Path) -> None:
    (root / "train" / "red" / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read the image '.*red/1\.png'"):
        load_data("image-folder", root=root)


def test_too_many_pixels_are_refused_before_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train" / "red" / "1.png").write_bytes(b"never read")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(OutOfMemoryError, match=r"8 images of 1000 x 1000 take 0\.0 GB") as caught:
        load_data("image-folder:1000", root=root)
    assert caught.value.needed == 8 * 3 * 10**6


# --- what images mean


@pytest.fixture
def greys(tmp_path: Path) -> Callable[..., Path]:
    """Writes a set of two classes whose images are saved by a function of their darkness, from 0 to 1."""

    def write(save: Callable[[float, Path], None]) -> Path:
        for part in ("train", "test"):
            for number, name in enumerate(("dark", "light")):
                (tmp_path / part / name).mkdir(parents=True)
                for place, level in enumerate((0.1, 0.2) if number == 0 else (0.6, 0.9)):
                    save(level, tmp_path / part / name / f"{place}.png")
        return tmp_path

    return write


def test_images_of_16_bits_keep_their_greys(greys: Callable[..., Path]) -> None:
    root = greys(lambda level, path: Image.fromarray(np.full((4, 4), round(level * 65535), dtype=np.uint16)).save(path))
    levels = load_data("image-folder:4", root=root).x_train[:, 0, 0, 0].double()
    expected = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.float64)
    torch.testing.assert_close(levels, (expected - expected.mean()) / expected.std(correction=0), atol=1e-4, rtol=0)


def test_16_bits_and_8_bits_are_not_mixed(greys: Callable[..., Path]) -> None:
    root = greys(lambda level, path: Image.fromarray(np.full((4, 4), round(level * 65535), dtype=np.uint16)).save(path))
    Image.new("L", (4, 4)).save(root / "train" / "light" / "1.png")
    with pytest.raises(DataError, match=r"light/1\.png' has 8 bits, and the first one 16"):
        load_data("image-folder:4", root=root)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_of_every_kind_are_colour_images_of_the_same_greys(greys: Callable[..., Path], mode: str) -> None:
    suffix = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")

    def save(level: float, path: Path) -> None:
        Image.new("L", (4, 4), 255 * round(level)).convert("RGB").convert(mode).save(path, suffix)

    x = load_data("image-folder:4", root=greys(save)).x_train
    assert x.shape == (4, 3, 4, 4)
    assert torch.allclose(x[:2], x.new_tensor(-1.0), atol=0.01)
    assert torch.allclose(x[2:], x.new_tensor(1.0), atol=0.01)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_which_nobody_knows_what_is_white_are_refused(root: Path, mode: str) -> None:
    Image.new(mode, (4, 4), 7).save(root / "train" / "red" / "x.tif")
    with pytest.raises(DataError, match=rf"cannot tell what is white in the image '.*red/x\.tif', of Pillow's mode '{mode}'"):
        load_data("image-folder:4", root=root)


def test_an_image_is_turned_as_its_exif_says(root: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0] = 255  # a white line at the top, which the camera held on its side
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(pixels).save(root / "train" / "blue" / "0.png", exif=exif)
    x = load_data("image-folder:4", root=root).x_train[0, 0]
    assert (x[:, 3] > x[:, 0]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot identify image file"), (b"not an image", "cannot identify image file"), (None, "truncated|broken")],
)
def test_what_is_no_whole_image_is_named(root: Path, content: bytes | None, message: str) -> None:
    path = root / "train" / "red" / "1.png"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        content = path.read_bytes()[:-2000]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot read the image '.*red/1\.png': .*({message})"):
        load_data("image-folder:4", root=root)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("most", "message"), [(3, "cannot read the image '.*red/1.png'"), (12, "red/1.png' has 4 x 5 pixels, expected at most 12")]
)
def test_a_decompression_bomb_is_refused_by_its_name(root: Path, monkeypatch: pytest.MonkeyPatch, most: int, message: str) -> None:
    for path in root.glob("*/*/*.png"):
        Image.new("RGB", (1, 1)).save(path)
    Image.new("RGB", (4, 5)).save(root / "train" / "red" / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(DataError, match=message):
        load_data("image-folder:4", root=root)


def test_links_are_followed_but_not_in_a_circle(root: Path) -> None:
    (root / "train" / "red" / "0.png").rename(root / "moved.png")
    (root / "train" / "red" / "0.png").symlink_to(root / "moved.png")
    assert len(load_data("image-folder:4", root=root).y_train) == 6
    (root / "train" / "red" / "more").symlink_to(root / "train")
    with pytest.raises(DataError, match=r"the link '.*red/more' leads back to a folder that it lies in"):
        load_data("image-folder:4", root=root)


def test_a_link_to_nothing_and_a_pipe_are_named(root: Path) -> None:
    (root / "train" / "red" / "1.png").unlink()
    (root / "train" / "red" / "1.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"red/1\.png': it is a broken link, or no regular file"):
        load_data("image-folder:4", root=root)
    (root / "train" / "red" / "1.png").unlink()
    os.mkfifo(root / "train" / "red" / "1.png")
    with pytest.raises(DataError, match=r"red/1\.png': it is a broken link, or no regular file"):
        load_data("image-folder:4", root=root)


def test_files_that_are_left_out_are_told_and_hidden_ones_are_not(root: Path) -> None:
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "red" / ".DS_Store").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data("image-folder:4", root=root)
    (root / "train" / "red" / "moving.gif").touch()
    with pytest.warns(UserWarning, match=r"1 files under '.*train' are left out, '.*red/moving\.gif' the first of them"):
        load_data("image-folder:4", root=root)
