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


@pytest.mark.filterwarnings("ignore:.*the training part has no sample")
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
        ({"x": X, "y": Y.float()}, r"labels are float32 \(\d+,\), targets of a regression"),
        ({"x": X, "y": Y[:, None].clone()}, r"labels are int64 \(\d+, 1\), with an axis too many"),
        ({"x": X, "y": Y[:19].clone()}, "x has 20 samples and y 19"),
        ({"x": X, "y": Y - 1}, "labels go from -1"),
        ({"x": X, "y": Y * 1000}, "the largest label is 2000, with only 20 samples"),
        ({"x": X, "y": torch.eye(3)[Y].clone()}, "one-hot, of which y.argmax"),
        ({"x": X, "y": Y + 1}, "labels go from 1 to 3 and none is 0, as if they were counted from 1; .* --tensors-first-label 1, or 0"),
        ({"x": X, "y": Y, "x_test": (X[:4] * 9).int(), "y_test": Y[:4].clone()}, "x is torch.float32 and x_test torch.int32"),
        ({"x": X[:0].clone(), "y": Y[:0].clone()}, r"x is torch.float32 \(0, 1, 6\)"),
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


@pytest.mark.parametrize(
    ("shape", "dtype", "looks", "layout"),
    [
        ((20, 16, 12, 3), torch.uint8, "channels that come last", "channels-last"),
        ((20, 16, 12, 1), torch.float32, "channels that come last", "channels-last"),
        ((20, 9, 9, 9, 2), torch.float32, "channels that come last", "channels-last"),
        ((20, 100, 2), torch.float32, "channels that come last", "channels-last"),
        ((20, 28, 28), torch.float32, "images without an axis of channels", "no-channels"),
        ((20, 28, 20), torch.uint8, "images without an axis of channels", "no-channels"),
    ],
)
def test_another_layout_is_read_where_an_option_says_so_and_refused_where_it_only_looks_so(tmp_path, shape, dtype, looks, layout):
    x = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0))
        if dtype.is_floating_point
        else torch.randint(0, 256, shape, dtype=dtype)
    )
    path = write(tmp_path, x=x, y=Y)
    with pytest.raises(DataError, match=rf"which looks like {looks}.*--tensors-layout {layout}, or channels-first"):
        load_data(f"tensors:{path}")
    expected = (*shape[-1:], *shape[1:-1]) if layout == "channels-last" else (1, *shape[1:])
    assert load_data(f"tensors:{path}", options={"layout": layout}).input_shape == expected
    assert load_data(f"tensors:{path}", options={"layout": "channels-first"}).input_shape == shape[1:]


@pytest.mark.parametrize("shape", [(20, 3, 16, 16), (20, 1, 28, 28), (20, 12, 100), (20, 64, 8, 8), (20, 1, 3), (20, 4, 4, 4), (20, 3, 2)])
def test_channels_that_come_first_need_no_option(tmp_path, shape):
    assert load_data(f"tensors:{write(tmp_path, x=torch.randn(shape), y=Y)}").input_shape == shape[1:]


def test_signals_without_channels(tmp_path):
    path = write(tmp_path, x=X[:, 0].clone(), y=Y)
    with pytest.raises(DataError, match="say so by layout = 'no-channels'"):
        load_data(f"tensors:{path}")
    assert load_data(f"tensors:{path}", options={"layout": "no-channels"}).input_shape == (1, 6)


def test_labels_are_counted_from_1_where_an_option_says_so(tmp_path):
    path = write(tmp_path, x=X, y=Y + 1, x_test=X[:4].clone(), y_test=Y[:4] + 1)
    data = load_data(f"tensors:{path}", options={"first_label": 1})
    assert (data.classes, data.y_train.tolist(), data.y_test.tolist()) == (3, Y.tolist(), Y[:4].tolist())
    with pytest.warns(UserWarning, match="of 4 classes, 1 without training samples: 0"):
        assert load_data(f"tensors:{path}", options={"first_label": 0}).classes == 4


def test_classes_that_cannot_be_learnt_and_inputs_that_are_not_normalised_are_told(tmp_path):
    path = write(tmp_path, x=X, y=Y, x_test=X[:4].clone(), y_test=torch.tensor([0, 1, 2, 5]))
    with pytest.warns(UserWarning, match="the test part has classes of which the training part has no sample: 5"):
        load_data(f"tensors:{path}")
    path = write(tmp_path, x=torch.randint(0, 256, (20, 1, 6)).float(), y=Y)
    with pytest.warns(UserWarning, match="x is floating point and taken as it is, but has mean"):
        load_data(f"tensors:{path}")
