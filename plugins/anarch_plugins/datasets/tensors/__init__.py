"""A data set in one safetensors file."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl
from anarch_plugins.datasets.tensors.options import TensorsOptions


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data set."""
    return [
        DatasetInfo(
            name="tensors",
            summary="Inputs and labels in one safetensors file (x, y, and x_test, y_test if there are), as in 'tensors:FILE'.",
            target="anarch_plugins.datasets.tensors.dataset:load",
            options=TensorsOptions,
        )
    ]
