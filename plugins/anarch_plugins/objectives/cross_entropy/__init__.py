"""Classification by cross-entropy, with or without label smoothing."""

from __future__ import annotations

from anarch_core.plugin import ObjectiveInfo, hookimpl
from anarch_plugins.objectives.cross_entropy.options import CrossEntropyOptions


@hookimpl
def anarch_objectives() -> list[ObjectiveInfo]:
    """Register the objective."""
    return [
        ObjectiveInfo(
            name="cross-entropy",
            summary="Classification: one class for each sample; scored by accuracy. cross-entropy:0.1 smooths labels.",
            target="anarch_core.objective:CrossEntropy",
            options=CrossEntropyOptions,
            references=("Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, section 7 (label smoothing)",),
        )
    ]
