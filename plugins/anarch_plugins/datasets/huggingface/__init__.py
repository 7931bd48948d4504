"""Data sets of Hugging Face."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl
from anarch_plugins.datasets.huggingface.options import HuggingFaceOptions


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data set."""
    return [
        DatasetInfo(
            name="huggingface",
            summary="A data set of the Hugging Face hub or of a folder, as in 'huggingface:ylecun/mnist'; needs the extra huggingface.",
            target="anarch_plugins.datasets.huggingface.dataset:load",
            options=HuggingFaceOptions,
        )
    ]
