"""Data from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anarch_core.data import load_data
from anarch_core.errors import DataError, OptionError

X = torch.randn(20, 1, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3


def write(folder: Path, **tensors: torch.Tensor) -> Path:
    path = folder / "data.safetensors"
    save_file(tensors, path)
    return path


def test_test_part_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, x=X, y=Y, x_test=X[:4].clone(), y_test=Y[:4].clone())
    data = load_data(f"tensors:{path}")
    assert torch.equal(data.x_train, X)
    assert torch.equal(data.x_test, X[:4])
    assert data.classes == 3


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 4), (0.5, 10), (0.001, 1), (0.999, 19)])
def test_test_part_is_held_out_where_the_file_has_none(tmp_path: Path, fraction: float, count: int) -> None:
    path = write(tmp_path, x=X, y=Y)
    data = load_data(f"tensors:{path}", options={"test_fraction": fraction})
    assert len(data.y_test) == count
    assert sorted(torch.cat([data.x_train, data.x_test])[:, 0, 0].tolist()) == sorted(X[:, 0, 0].tolist())
    assert data.digest() == load_data(f"tensors:{path}", options={"test_fraction": fraction}, seed=7).digest()


def test_relative_path_starts_at_the_data_root(tmp_path: Path) -> None:
    write(tmp_path, x=X, y=Y)
    assert load_data("tensors:data.safetensors", root=tmp_path).input_shape == (1, 6)


def test_images_of_bytes_are_normalised_by_the_training_part(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (30, 3, 4, 4), dtype=torch.uint8)
    data = load_data(f"tensors:{write(tmp_path, x=images, y=torch.arange(30, dtype=torch.uint8) % 2)}")
    assert data.y_train.dtype == torch.int64
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = write(tmp_path, x=X.to(dtype), y=Y, x_test=X[:4].to(dtype), y_test=Y[:4].clone())
    assert torch.equal(load_data(f"tensors:{path}").x_train, X.to(dtype).float())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x": X}, r"no tensor y \(it has x\)"),
        ({"x": X, "y": Y, "x_test": X.clone()}, "no tensor y_test"),
        ({"x": X[:, 0].clone(), "y": Y}, r"x is torch.float32 \(20, 6\), expected integers or floats \[n, channels, length\]"),
        ({"x": X, "y": Y.float()}, r"y is torch.float32 \(20,\), expected integer labels"),
        ({"x": X, "y": Y[:, None].clone()}, r"y is torch.int64 \(20, 1\)"),
        ({"x": X, "y": Y[:19].clone()}, "x has 20 samples and y 19"),
        ({"x": X, "y": Y - 1}, "labels go from -1"),
        ({"x": X, "y": Y * 1000}, "the largest label is 2000, with only 20 samples"),
        ({"x": X, "y": Y * 0}, "1 class, expected at least 2"),
        ({"x": X / 0, "y": Y}, "not finite"),
        ({"x": X, "y": Y, "x_test": X[:, :, :5].clone(), "y_test": Y.clone()}, r"\(1, 5\), but the training inputs are \(1, 6\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"tensors:{write(tmp_path, **tensors)}")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_data(f"tensors:{tmp_path / 'nowhere'}")
    path = write(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"cannot read .* as safetensors"):
        load_data(f"tensors:{path}")


def test_a_file_must_be_named() -> None:
    with pytest.raises(OptionError, match="needs a value for 'path'"):
        load_data("tensors")
