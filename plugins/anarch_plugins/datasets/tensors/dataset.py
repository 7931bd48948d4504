"""Tensors from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from anarch_core.data import TensorData, channel_statistics, normalised, permutation
from anarch_core.errors import DataError
from anarch_plugins.datasets.tensors.options import TensorsOptions


def load(root: Path | None, options: TensorsOptions) -> TensorData:
    """Read ``x`` [n, channels, *spatial] and ``y`` [n], and ``x_test`` and ``y_test`` where they are given.

    Integer inputs (8-bit images) are normalised: each channel by mean and deviation of the training part. Floating-point inputs are taken
    to be normalised already. Labels are integers from 0; the number of classes is the largest label plus one.

    Args:
        root: where a relative path starts; the working directory if None.
        options: the file, and the share to test on.

    Raises:
        DataError: the file is missing or damaged, or its tensors are not what is described here.
    """
    path = (root or Path()).expanduser() / options.path.expanduser()
    tensors = _read(path)
    names = ("x", "y", "x_test", "y_test")
    missing = [name for name in names[: 4 if {"x_test", "y_test"} & set(tensors) else 2] if name not in tensors]
    if missing:
        present = ", ".join(sorted(tensors)) or "none"
        msg = f"{str(path)!r} has no tensor {', '.join(missing)} (it has {present}); expected x, y and, together, x_test, y_test"
        raise DataError(msg)
    x, y = _checked(path, "x", tensors["x"]), _labels(path, "y", tensors["y"])
    if len(x) != len(y) or len(y) < 2:
        msg = f"{str(path)!r}: x has {len(x)} samples and y {len(y)}, expected equally many and at least two"
        raise DataError(msg)
    if "x_test" in tensors:
        x_test, y_test = _checked(path, "x_test", tensors["x_test"]), _labels(path, "y_test", tensors["y_test"])
    else:
        order = permutation(len(y), "test")
        count = min(max(round(options.test_fraction * len(y)), 1), len(y) - 1)
        test, train = order[:count].sort().values, order[count:].sort().values
        x, y, x_test, y_test = x[train], y[train], x[test], y[test]
    if x.is_floating_point():
        x, x_test = x.float(), x_test.float()
    else:
        statistics = channel_statistics(x)
        x, x_test = normalised(x, *statistics), normalised(x_test, *statistics)
    classes = int(max(y.max(), y_test.max())) + 1
    if classes > len(y) + len(y_test):
        msg = (
            f"{str(path)!r}: the largest label is {classes - 1}, with only {len(y) + len(y_test)} samples; labels are class numbers from 0"
        )
        raise DataError(msg)
    return TensorData(name="tensors", x_train=x, y_train=y, x_test=x_test, y_test=y_test, classes=classes)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        msg = f"there is no file {str(path)!r}; expected a safetensors file with x and y"
        raise DataError(msg)
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"cannot read {str(path)!r} as safetensors: {error}"
        raise DataError(msg) from error
    return tensors


def _checked(path: Path, name: str, x: torch.Tensor) -> torch.Tensor:
    if x.ndim < 3 or x.is_complex() or x.dtype == torch.bool or 0 in x.shape:
        msg = (
            f"{str(path)!r}: {name} is {x.dtype} {tuple(x.shape)}, expected integers or floats [n, channels, length] or [n, channels, h, w]"
        )
        raise DataError(msg)
    return x


def _labels(path: Path, name: str, y: torch.Tensor) -> torch.Tensor:
    if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or not len(y):
        msg = f"{str(path)!r}: {name} is {y.dtype} {tuple(y.shape)}, expected integer labels [n]"
        raise DataError(msg)
    return y.long()
