"""A square of each input is blanked."""

from __future__ import annotations

from anarch_core.plugin import AugmentationInfo, hookimpl
from anarch_plugins.augmentations.cutout.options import CutoutOptions


@hookimpl
def anarch_augmentations() -> list[AugmentationInfo]:
    """Register the augmentation."""
    return [
        AugmentationInfo(
            name="cutout",
            summary="Sets a square of each input (a stretch of a signal) to zero, the mean of normalised inputs: cutout:8.",
            target="anarch_plugins.augmentations.cutout.augmentation:Cutout",
            options=CutoutOptions,
            references=("DeVries & Taylor 2017, arXiv:1708.04552",),
        )
    ]
