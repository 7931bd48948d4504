"""Folders of images as tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL.Image import Resampling

from anarch_core.data import TensorData, channel_statistics, normalised
from anarch_core.errors import DataError, OutOfMemoryError
from anarch_plugins.datasets.image_folder.options import ImageFolderOptions
from anarch_plugins.vision import torchvision


def load(root: Path | None, options: ImageFolderOptions) -> TensorData:
    """Read ``ROOT/train/CLASS/*`` and ``ROOT/test/CLASS/*`` (or ``val``) as RGB images of one size.

    Each channel is normalised by mean and deviation of the training images.

    Args:
        root: the folder with ``train`` and ``test``.
        options: the size.

    Raises:
        DataError: a folder is missing or empty, train and test differ in their classes, or an image cannot be read.
        OutOfMemoryError: the images would not fit into memory; raised before any is read.
        MissingDependencyError: torchvision cannot be imported.
    """
    if root is None:
        msg = "image-folder needs the folder that holds train/ and test/: --data-root FOLDER"
        raise DataError(msg)
    root = root.expanduser()
    train = _index(root / "train")
    test = _index(root / "test" if (root / "test").is_dir() or not (root / "val").is_dir() else root / "val")
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        msg = f"{train.root} and {test.root} must have the same class folders; only one has {', '.join(differ[:5])}"
        raise DataError(msg)
    _foresee_memory(len(train.samples) + len(test.samples), options.size)
    (x_train, y_train), (x_test, y_test) = _read(train, options.size), _read(test, options.size)
    statistics = channel_statistics(x_train)
    return TensorData(
        name="image-folder",
        x_train=normalised(x_train, *statistics),
        y_train=y_train,
        x_test=normalised(x_test, *statistics),
        y_test=y_test,
        classes=len(train.classes),
        class_names=tuple(train.classes),
    )


def _index(folder: Path) -> Any:
    """What torchvision finds in the folder: ``samples`` (path and label) and ``classes``. Reads no image."""
    datasets = torchvision("datasets")
    if not folder.is_dir():
        msg = f"there is no folder {str(folder)!r}; image-folder needs train/ and test/ (or val/), each with one folder per class"
        raise DataError(msg)
    try:
        return datasets.ImageFolder(folder)
    except OSError as error:
        msg = f"no classes in {str(folder)!r}: {str(error).partition(chr(10))[0]}"
        raise DataError(msg) from error


def _foresee_memory(images: int, size: int) -> None:
    # One byte per value as read and four as normalised, both held while normalising.
    needed = images * 3 * size**2 * 5
    available = psutil.virtual_memory().available
    if needed > available:
        msg = (
            f"{images} images of {size} x {size} take {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free; "
            "make them smaller with --image-folder-size"
        )
        raise OutOfMemoryError(msg, needed=needed, available=available)


def _read(index: Any, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as uint8 [n, 3, size, size] and labels as int64 [n]."""
    images = np.empty((len(index.samples), 3, size, size), dtype=np.uint8)

    def read(number: int) -> None:
        path = index.samples[number][0]
        try:
            picture = index.loader(path).resize((size, size), Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError) as error:
            msg = f"cannot read the image {path!r}: {error}"
            raise DataError(msg) from error
        images[number] = np.asarray(picture).transpose(2, 0, 1)

    # Decoding and resizing run outside the interpreter lock.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(len(images))):
            pass
    return torch.from_numpy(images), torch.tensor([label for _, label in index.samples])
