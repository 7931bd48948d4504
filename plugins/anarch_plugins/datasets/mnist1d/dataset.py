"""MNIST-1D as tensors."""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mnist1d.data import get_dataset_args, make_dataset

from anarch_core.data import TensorData


def load(root: Path | None, options: None) -> TensorData:
    """Generate the published data set (seed 42 of the package): 4000 training and 1000 test signals, [n, 1, 40], in about a second.

    The package centres and scales the signals over training and test set together; they are taken as it makes them, so that accuracies
    compare with published ones.

    Args:
        root: not used, nothing is read or written.
        options: there are none.
    """
    arrays = generated()
    return TensorData(
        name="mnist1d",
        x_train=torch.from_numpy(arrays["x"]).float().unsqueeze(1),
        y_train=torch.from_numpy(arrays["y"]).long(),
        x_test=torch.from_numpy(arrays["x_test"]).float().unsqueeze(1),
        y_test=torch.from_numpy(arrays["y_test"]).long(),
        classes=10,
        class_names=tuple("0123456789"),
    )


def generated() -> dict[str, Any]:
    """The arrays of the package."""
    with _global_random_state_kept(), _quick_interpolation():
        arrays: dict[str, Any] = make_dataset(get_dataset_args())
    return arrays


@contextmanager
def _quick_interpolation() -> Iterator[None]:
    """The package makes an object of SciPy for each of 20,000 interpolations, which calls ``numpy.interp`` then: the bits are the same."""
    transform: Any = importlib.import_module("mnist1d.transform")
    slow = transform.interpolate
    transform.interpolate = lambda signal, points: np.interp(_unit_interval(points), _unit_interval(len(signal)), signal)
    try:
        yield
    finally:
        transform.interpolate = slow


@functools.cache
def _unit_interval(points: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.linspace(0, 1, points)


@contextmanager
def _global_random_state_kept() -> Iterator[None]:
    """The package seeds the global generators of Python and numpy."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
