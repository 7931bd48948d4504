"""Tensors from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from anarch_core.data import TensorData, channel_statistics, normalised, permutation
from anarch_core.errors import DataError
from anarch_plugins.datasets.tensors.meaning import class_numbers, counted_from_0, warn_of_odd, with_channels
from anarch_plugins.datasets.tensors.options import TensorsOptions


def load(root: Path | None, options: TensorsOptions) -> TensorData:
    """Read ``x`` [n, channels, *spatial] and ``y`` [n], and ``x_test`` and ``y_test`` where they are given.

    Integer inputs (8-bit images) are normalised: each channel by mean and deviation of the training part. Floating-point inputs are taken
    to be normalised already. Labels are integers from 0; the number of classes is the largest label plus one. What looks like another
    layout, or like labels counted from 1, is refused until the options say what it is.

    Warns of classes without training samples, and of floating-point inputs far from mean 0 and deviation 1.

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
    where = repr(str(path))
    x, y = with_channels(f"{where}: x", tensors["x"], options.layout), class_numbers(f"{where}, y", tensors["y"])
    if len(x) != len(y) or len(y) < 2:
        msg = f"{where}: x has {len(x)} samples and y {len(y)}, expected equally many and at least two"
        raise DataError(msg)
    if "x_test" in tensors:
        x_test = with_channels(f"{where}: x_test", tensors["x_test"], options.layout)
        y, y_test = counted_from_0(where, [y, class_numbers(f"{where}, y_test", tensors["y_test"])], options.first_label)
    else:
        (y,) = counted_from_0(where, [y], options.first_label)
        order = permutation(len(y), "test")
        count = min(max(round(options.test_fraction * len(y)), 1), len(y) - 1)
        test, train = order[:count].sort().values, order[count:].sort().values
        x, y, x_test, y_test = x[train], y[train], x[test], y[test]
    if x.is_floating_point() and x_test.is_floating_point():
        x, x_test = x.float(), x_test.float()
    elif x.dtype != x_test.dtype:
        msg = f"{where}: x is {x.dtype} and x_test {x_test.dtype}; expected the same type, so that they are scaled alike"
        raise DataError(msg)
    else:
        statistics = channel_statistics(x)
        x, x_test = normalised(x, *statistics), normalised(x_test, *statistics)
    classes = int(max(y.max(), y_test.max())) + 1
    if classes > len(y) + len(y_test):
        msg = f"{where}: the largest label is {classes - 1}, with only {len(y) + len(y_test)} samples; labels are class numbers from 0"
        raise DataError(msg)
    if y.min() >= 0 and y_test.min() >= 0:
        warn_of_odd(where, x, y, y_test, classes)
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
