"""Dense prediction by cross-entropy at every position."""

from __future__ import annotations

from anarch_core.plugin import ObjectiveInfo, hookimpl
from anarch_plugins.objectives.pixel_cross_entropy.options import PixelCrossEntropyOptions


@hookimpl
def anarch_objectives() -> list[ObjectiveInfo]:
    """Register the objective."""
    return [
        ObjectiveInfo(
            name="pixel-cross-entropy",
            summary="Dense prediction: a class for every position of a sample; scored by mean intersection over union, and accuracy.",
            target="anarch_plugins.objectives.pixel_cross_entropy.objective:PixelCrossEntropy",
            options=PixelCrossEntropyOptions,
            references=("Long, Shelhamer, Darrell 2015, section 5 (pixel accuracy, mean IU)",),
        )
    ]
