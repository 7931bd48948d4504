"""Data from NumPy's files: an .npz file, or a folder of .npy files that stay where they are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anarch_core.data import Stored, load_data
from anarch_core.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 9, 9), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images-train", "targets-train", "images-test", "targets-test"),
        ("x", "y", "x_test", "y_test"),
    ],
    ids=lambda names: names[0],
)
def test_arrays_by_their_usual_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", **dict(zip(names, (IMAGES, LABELS, IMAGES[:12], LABELS[:12]), strict=True)))
    data = load_data(f"numpy:{tmp_path / 'a.npz'}")
    assert (data.classes, data.input_shape, len(data.y_test)) == (4, (3, 9, 9), 12)
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_a_folder_of_files_is_mapped_and_gives_the_same_bytes_as_a_file(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:12], "y_test": LABELS[:12]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = load_data(f"numpy:{tmp_path}", whole=False)
    assert isinstance(mapped.inputs("train"), Stored)
    assert mapped.digest() == load_data(f"numpy:{tmp_path}").digest() == load_data(f"numpy:{tmp_path / 'a.npz'}").digest()


def test_floats_in_a_folder_are_mapped_too(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", LABELS)
    data = load_data(f"numpy:{tmp_path}", whole=False)
    assert isinstance(data.inputs("train"), Stored)
    assert sorted(torch.cat([data.x_train, data.x_test])[:, 0, 0].tolist()) == sorted(x[:, 0, 0].astype(np.float32).tolist())


def test_a_validation_part_and_labels_in_a_column_as_of_medmnist(tmp_path: Path) -> None:
    images = IMAGES.transpose(0, 2, 3, 1)
    parts = {f"{part}_images": images for part in ("train", "val", "test")} | {
        f"{part}_labels": LABELS[:, None] for part in ("train", "val", "test")
    }
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(DataError, match=r"looks like channels that come last.*--numpy-layout channels-last"):
        load_data(f"numpy:{tmp_path / 'a.npz'}")
    data = load_data(f"numpy:{tmp_path / 'a.npz'}", options={"layout": "channels-last"})
    assert data.y_validation is not None
    assert data.y_validation.tolist() == LABELS.tolist()
    assert data.input_shape == (3, 9, 9)


@pytest.mark.parametrize("dtype", [">i2", np.uint16, np.float16, ">f8", np.longdouble])
def test_numbers_of_any_type(tmp_path: Path, dtype: Any) -> None:
    np.savez(
        tmp_path / "a.npz",
        x=IMAGES[:, :, ::-1].astype(dtype) / 1 if np.dtype(dtype).kind == "f" else IMAGES.astype(dtype),
        y=LABELS.astype(">i4"),
    )
    with pytest.warns(UserWarning, match="x is floating point") if np.dtype(dtype).kind == "f" else contextlib.nullcontext():
        assert load_data(f"numpy:{tmp_path / 'a.npz'}").x_train.dtype == torch.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": IMAGES}, r"has no array y_train \(it has x_train\)"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES}, r"has no array y_test \(it has x, x_test, y\)"),
        ({"x": IMAGES, "images": IMAGES, "y": LABELS}, "has several arrays for one part, images, x; leave one, or call it x_train"),
        ({"x": IMAGES, "y": LABELS.astype(object)}, "holds pickled Python objects"),
        ({"x": IMAGES, "y": LABELS.astype(str)}, "train part, y holds <U"),
        ({"x": IMAGES, "y": LABELS + 1}, "--numpy-first-label 1, or 0"),
        ({"x": IMAGES[:30], "y": LABELS}, "x has 30 samples and y 40"),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_data(f"numpy:{tmp_path / 'a.npz'}")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        load_data(f"numpy:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match=r"there is no \.npy file in the folder"):
        load_data(f"numpy:{tmp_path}")
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (whole[:1000], b"", b"text", b"\x80\x04K\x01."):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read|holds pickled Python objects, or is no file"):
            load_data(f"numpy:{tmp_path / 'a.npz'}")
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="holds one array, without a name"):
        load_data(f"numpy:{tmp_path / 'one.npy'}")
