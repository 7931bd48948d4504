"""Mirror images of half of the inputs."""

from __future__ import annotations

from anarch_core.plugin import AugmentationInfo, hookimpl


@hookimpl
def anarch_augmentations() -> list[AugmentationInfo]:
    """Register the augmentation."""
    return [
        AugmentationInfo(
            name="flip",
            summary="Mirrors each input along its last axis (left and right of images) with probability one half.",
            target="anarch_plugins.augmentations.flip.augmentation:Flip",
        )
    ]
