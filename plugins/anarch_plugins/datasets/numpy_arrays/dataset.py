"""Data from NumPy's files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anarch_core.data import Meaning, TensorData, gathered
from anarch_core.errors import DataError
from anarch_plugins.datasets.numpy_arrays.options import NumpyOptions

Array = npt.NDArray[Any]

INPUTS = ("x", "images", "image", "data", "inputs", "signals", "features")
TARGETS = ("y", "labels", "label", "targets", "target")
PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("validation", "valid", "val", "dev")}
"""What arrays may be called, in this order: ``x_train``, ``train_x``, ``train_images``; those of the training part also ``x`` alone."""


def load(root: Path | None, options: NumpyOptions) -> TensorData:
    """Read ``x_train``, ``y_train`` and, where they are given, ``x_test``, ``y_test``, ``x_validation`` and ``y_validation``.

    Arrays mean what tensors of the data set ``tensors`` mean. Labels may be a column, [n, 1]. Files with pickled objects are refused, since
    to read one is to run it. Inputs of a folder stay in its files, which are mapped, until they are read.

    Args:
        root: where a relative path starts; the working directory if None.
        options: where the arrays are, and what they mean.

    Raises:
        DataError: there are no such arrays, they cannot be read, or they are not what is described here.
    """
    path = (root or Path()).expanduser() / options.path.expanduser()
    arrays = _of_folder(path) if path.is_dir() else _of_file(path)
    meaning = Meaning.of(repr(str(path)), "--numpy-", options)
    return gathered("numpy", _parts(path, arrays), meaning=meaning)


def _of_folder(path: Path) -> dict[str, Array]:
    files = sorted(path.glob("*.npy"))
    if not files:
        msg = f"there is no .npy file in the folder {str(path)!r}; expected x_train.npy, y_train.npy, x_test.npy and y_test.npy"
        raise DataError(msg)
    arrays = {}
    for file in files:
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(file, error) from error
    return arrays


def _of_file(path: Path) -> dict[str, Array]:
    if not path.is_file():
        msg = f"there is no file or folder {str(path)!r}; expected an .npz file, or a folder of .npy files"
        raise DataError(msg)
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.ndarray):
                return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    msg = f"{str(path)!r} holds one array, without a name; expected an .npz file with x_train and y_train, or a folder of .npy files"
    raise DataError(msg)


def _unreadable(path: Path, error: Exception) -> DataError:
    if "pickle" in str(error).lower():
        return DataError(
            f"{str(path)!r} holds pickled Python objects, or is no file of NumPy's; a pickle runs code when it is read, so it is refused: "
            "save arrays of numbers"
        )
    return DataError(f"cannot read {str(path)!r}: {' '.join(str(error).split())[:200] or type(error).__name__}")


def _parts(path: Path, arrays: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Inputs and targets of the parts."""
    parts = {}
    for part, called in PARTS.items():
        names = [_find(path, arrays, kind, called, alone=part == "train") for kind in (INPUTS, TARGETS)]
        if names[0] is not None and names[1] is not None:
            parts[part] = arrays[names[0]], _column(arrays[names[1]])
        elif part == "train" or any(names):
            missing = f"{'x' if names[0] is None else 'y'}_{part}"
            present = ", ".join(sorted(arrays)) or "none"
            msg = f"{str(path)!r} has no array {missing} (it has {present}); expected x_train, y_train and, together, x_test, y_test"
            raise DataError(msg)
    return parts


def _find(path: Path, arrays: Mapping[str, Array], kinds: tuple[str, ...], parts: tuple[str, ...], *, alone: bool) -> str | None:
    """The name of the one array of a kind and a part, whatever its case and the order of the two words; None if there is none."""
    usual = {
        f"{first}{between}{second}"
        for kind in kinds
        for part in parts
        for first, second in ((kind, part), (part, kind))
        for between in "_-"
    }
    found = [name for name in arrays if name.lower() in usual] or [name for name in arrays if alone and name.lower() in kinds]
    if len(found) > 1:
        msg = f"{str(path)!r} has several arrays for one part, {', '.join(sorted(found))}; leave one, or call it {kinds[0]}_{parts[0]}"
        raise DataError(msg)
    return found[0] if found else None


def _column(labels: Array) -> Array:
    """Labels that are a column, as in MedMNIST, without the axis too many."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "iu" else labels
