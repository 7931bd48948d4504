"""Tensors from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from anarch_core.data import Meaning, TensorData, assembled
from anarch_core.errors import DataError
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
    meaning = Meaning.of(repr(str(path)), "--tensors-", options)
    parts = {"train": (tensors["x"], tensors["y"])}
    if "x_test" in tensors:
        parts["test"] = tensors["x_test"], tensors["y_test"]
    return assembled("tensors", parts, meaning)


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
