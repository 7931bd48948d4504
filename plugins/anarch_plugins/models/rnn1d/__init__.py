"""A recurrent network over the patches of a signal."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.rnn1d.options import Rnn1dOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the model."""
    return [
        ModelInfo(
            name="rnn1d",
            summary="One recurrent cell, called for every patch of a signal, and a linear head: 8 steps and 3,360 parameters on MNIST-1D.",
            target="anarch_plugins.models.rnn1d.model:build",
            options=Rnn1dOptions,
            references=("Elman 1990", "Cho et al. 2014, https://arxiv.org/abs/1406.1078"),
        )
    ]
