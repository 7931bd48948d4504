"""Images of one's own, in a folder per class."""

from __future__ import annotations

from anarch_core.plugin import DatasetInfo, hookimpl
from anarch_plugins.datasets.image_folder.options import ImageFolderOptions


@hookimpl
def anarch_datasets() -> list[DatasetInfo]:
    """Register the data set."""
    return [
        DatasetInfo(
            name="image-folder",
            summary="Images in a folder per class, under train/ and test/ (or val/) of the data root, resized to one size.",
            target="anarch_plugins.datasets.image_folder.dataset:load",
            options=ImageFolderOptions,
        )
    ]
