"""A data set of NumPy arrays."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl
from anarch_plugins.datasets.numpy_arrays.options import NumpyOptions


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data set."""
    return [
        DatasetInfo(
            name="numpy",
            summary="NumPy arrays x_train, y_train, x_test, y_test in an .npz file, or in a folder of .npy files that are memory-mapped.",
            target="anarch_plugins.datasets.numpy_arrays.dataset:load",
            options=NumpyOptions,
        )
    ]
