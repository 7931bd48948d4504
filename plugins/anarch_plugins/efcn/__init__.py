"""Fully connected: neither local nor shared (the eFCN of d'Ascoli et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.api import RelaxationInfo
from anarch_core.hookspecs import hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``efcn``."""
    return [
        RelaxationInfo(
            name="efcn",
            summary="Fully connected layer: neither locality nor weight sharing.",
            target="anarch_plugins.efcn.relaxation:FullyConnectedRelaxation",
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, section 3",),
        )
    ]
