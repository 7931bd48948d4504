"""A run in TensorBoard."""

from __future__ import annotations

from anarch_core.plugin import ObserverInfo, hookimpl


@hookimpl
def anarch_observers() -> list[ObserverInfo]:
    """Register the observer."""
    return [
        ObserverInfo(
            name="tensorboard",
            summary="Writes event files for TensorBoard, a run for each segment, to tensorboard/ in the run directory.",
            target="anarch_plugins.observers.tensorboard.observer:TensorboardObserver",
        )
    ]
