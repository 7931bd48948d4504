"""Folders of images as tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch

from anarch_core.data import Stored, TensorData, channel_statistics
from anarch_core.errors import DataError, OutOfMemoryError
from anarch_plugins.datasets.image_folder.index import Index
from anarch_plugins.datasets.image_folder.options import ImageFolderOptions
from anarch_plugins.datasets.image_folder.picture import read_picture


def load(root: Path | None, options: ImageFolderOptions) -> TensorData:
    """Read ``ROOT/train/CLASS/*`` and ``ROOT/test/CLASS/*`` (or ``val``) as RGB images of one size.

    Each channel is normalised by mean and deviation of the training images.

    Args:
        root: the folder with ``train`` and ``test``.
        options: the size.

    Raises:
        DataError: a folder is missing or empty, train and test differ in their classes, or an image cannot be read.
        OutOfMemoryError: the images would not fit into memory; raised before all but the first are read.
    """
    if root is None:
        msg = "image-folder needs the folder that holds train/ and test/: --data-root FOLDER"
        raise DataError(msg)
    root = root.expanduser()
    train = Index.of(root / "train")
    test = Index.of(root / "test" if (root / "test").is_dir() or not (root / "val").is_dir() else root / "val")
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        msg = f"{train.folder} and {test.folder} must have the same class folders; only one has {', '.join(differ[:5])}"
        raise DataError(msg)
    dtype = read_picture(train.samples[0][0], options.size).dtype
    _foresee_memory(len(train.samples) + len(test.samples), options.size, dtype.itemsize)
    (x_train, y_train), (x_test, y_test) = _read(train, options.size, dtype), _read(test, options.size, dtype)
    statistics = channel_statistics(x_train)
    return TensorData(
        name="image-folder",
        x_train=Stored(x_train, *statistics),
        y_train=y_train,
        x_test=Stored(x_test, *statistics),
        y_test=y_test,
        classes=len(train.classes),
        class_names=train.classes,
    )


def _foresee_memory(images: int, size: int, itemsize: int) -> None:
    needed = images * 3 * size**2 * itemsize
    available = psutil.virtual_memory().available
    if needed > available:
        msg = (
            f"{images} images of {size} x {size} take {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free; "
            "make them smaller with --image-folder-size"
        )
        raise OutOfMemoryError(msg, needed=needed, available=available)


def _read(index: Index, size: int, dtype: np.dtype[np.uint8] | np.dtype[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as [n, 3, size, size] from 0 to 255 and labels as int64 [n]."""
    images = np.empty((len(index.samples), 3, size, size), dtype=dtype)

    def read(number: int) -> None:
        path = index.samples[number][0]
        picture = read_picture(path, size)
        if picture.dtype != dtype:
            bits = {np.dtype(np.uint8): 8, np.dtype(np.float32): 16}
            msg = f"the image {str(path)!r} has {bits[picture.dtype]} bits, and the first one {bits[dtype]}; save all with the same number"
            raise DataError(msg)
        images[number] = picture

    # Decoding and resizing run outside the interpreter lock.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(len(images))):
            pass
    return torch.from_numpy(images), torch.tensor([label for _, label in index.samples])
