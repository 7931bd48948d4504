"""Regression by the mean squared error."""

from __future__ import annotations

from anarch_core.plugin import ObjectiveInfo, hookimpl


@hookimpl
def anarch_objectives() -> list[ObjectiveInfo]:
    """Register the objective."""
    return [
        ObjectiveInfo(
            name="mse",
            summary="Regression: numbers for each sample; mean squared error, scored by R2, root mean square and mean absolute error.",
            target="anarch_plugins.objectives.mse.objective:MeanSquaredError",
        )
    ]
