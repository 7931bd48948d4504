"""Unmasking: weights that were held at zero by a mask become free."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``unmask``."""
    return [
        RelaxationInfo(
            name="unmask",
            summary="Pruned or masked weights become dense: what the mask held at zero is trained, from zero on.",
            target="anarch_plugins.relaxations.unmask.relaxation:Unmasking",
            references=("Frankle & Carbin 2019, The Lottery Ticket Hypothesis, https://arxiv.org/abs/1803.03635",),
        )
    ]
