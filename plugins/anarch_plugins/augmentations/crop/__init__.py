"""Random crops of padded inputs."""

from __future__ import annotations

from anarch_core.plugin import AugmentationInfo, hookimpl
from anarch_plugins.augmentations.crop.options import CropOptions


@hookimpl
def anarch_augmentations() -> list[AugmentationInfo]:
    """Register the augmentation."""
    return [
        AugmentationInfo(
            name="crop",
            summary="Shifts each input by up to so many positions along every axis, as a random crop after padding: crop:4.",
            target="anarch_plugins.augmentations.crop.augmentation:Crop",
            options=CropOptions,
        )
    ]
