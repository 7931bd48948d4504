"""Several labels at once by binary cross-entropy."""

from __future__ import annotations

from anarch_core.plugin import ObjectiveInfo, hookimpl


@hookimpl
def anarch_objectives() -> list[ObjectiveInfo]:
    """Register the objective."""
    return [
        ObjectiveInfo(
            name="bce",
            summary="Several labels, each there or not; binary cross-entropy, scored by F1, and by labels and samples that are all right.",
            target="anarch_plugins.objectives.bce.objective:BinaryCrossEntropy",
        )
    ]
