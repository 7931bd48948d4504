"""Data sets of torchvision as tensors."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from anarch_core.data import Stored, TensorData, channel_statistics
from anarch_core.errors import DataError
from anarch_plugins.vision import torchvision


@attrs.frozen
class _Source:
    """How torchvision knows a data set.

    Attributes:
        name: our name.
        cls: its class.
        entry: what its files are called under the data root, for messages.
        parts: arguments that select the training and the test part.
        classes: number of classes.
    """

    name: str
    cls: str
    entry: str
    parts: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
    classes: int = 10


def load(source: _Source, root: Path | None, options: None) -> TensorData:
    """Read a data set that is already there, or download it; normalise each channel by the training images' mean and deviation.

    Args:
        source: which data set.
        root: folder that holds the official files, or the data set's own folder in it; ``$XDG_CACHE_HOME/anarch`` if None.
        options: there are none.

    Raises:
        DataError: the folder does not exist, or the data are neither there nor to be had.
        MissingDependencyError: torchvision cannot be imported.
    """
    cls = getattr(torchvision("datasets"), source.cls)
    folder = _folder(source, root)
    train, test = (_part(source, cls, folder, part) for part in source.parts)
    try:
        (x_train, y_train), (x_test, y_test) = _tensors(train), _tensors(test)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        msg = f"data {source.name!r}: {str(folder / source.entry)!r} does not hold images and their labels: {_one_line(error)}"
        raise DataError(msg) from error
    statistics = channel_statistics(x_train)
    return TensorData(
        name=source.name,
        x_train=Stored(x_train, *statistics),
        y_train=y_train,
        x_test=Stored(x_test, *statistics),
        y_test=y_test,
        classes=source.classes,
        class_names=tuple(getattr(train, "classes", map(str, range(source.classes)))),
    )


cifar10 = partial(load, _Source("cifar10", "CIFAR10", "cifar-10-batches-py"))
cifar100 = partial(load, _Source("cifar100", "CIFAR100", "cifar-100-python", classes=100))
mnist = partial(load, _Source("mnist", "MNIST", "MNIST"))
fashion_mnist = partial(load, _Source("fashion-mnist", "FashionMNIST", "FashionMNIST"))
svhn = partial(load, _Source("svhn", "SVHN", "train_32x32.mat", ({"split": "train"}, {"split": "test"})))


def _folder(source: _Source, root: Path | None) -> Path:
    if root is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anarch"
    folder = root.expanduser()
    if not folder.is_dir():
        msg = f"data {source.name!r}: the folder {str(folder)!r} does not exist; create it to have the data downloaded there"
        raise DataError(msg)
    return folder.parent if folder.name == source.entry else folder


def _part(source: _Source, cls: Any, folder: Path, part: dict[str, Any]) -> Any:
    """One part of the data set. Nothing is downloaded, nor any connection tried, where the files are there and whole."""
    try:
        return cls(folder, download=False, **part)
    except RuntimeError:
        pass  # torchvision's word for "not found or corrupted"
    except Exception as error:  # of damaged files, readers of pickles and archives raise what they like
        msg = f"data {source.name!r}: cannot read {str(folder / source.entry)!r}: {_one_line(error)}"
        raise DataError(msg) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return cls(folder, download=True, **part)
    except Exception as error:
        msg = (
            f"data {source.name!r}: looked for {str(folder / source.entry)!r}, which is missing or damaged, and could not download it "
            f"({_one_line(error)}); put the official files there, or say where they are with --data-root FOLDER"
        )
        raise DataError(msg) from error


def _tensors(part: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as uint8 [n, channels, height, width], labels as int64 [n]."""
    images = torch.as_tensor(part.data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    labels = part.labels if hasattr(part, "labels") else part.targets
    return images, torch.from_numpy(np.asarray(labels, dtype=np.int64))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
