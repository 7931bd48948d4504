"""Weights & Biases for anarch."""

from __future__ import annotations

from anarch_core.plugin import ObserverInfo, hookimpl
from anarch_wandb.options import WandbOptions

anarch_api = (1, 1)


@hookimpl
def anarch_observers() -> list[ObserverInfo]:
    """The observer ``wandb``."""
    return [
        ObserverInfo(
            name="wandb",
            summary="Logs to Weights & Biases: a run for each segment, all of a tree in a group.",
            target="anarch_wandb.observer:WandbObserver",
            options=WandbOptions,
            references=("https://docs.wandb.ai",),
        )
    ]
