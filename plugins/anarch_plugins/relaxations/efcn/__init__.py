"""Fully connected: neither local nor shared (the eFCN of d'Ascoli et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``efcn``."""
    return [
        RelaxationInfo(
            name="efcn",
            summary="Fully connected layer: neither locality nor weight sharing.",
            target="anarch_plugins.relaxations.efcn.relaxation:FullyConnectedRelaxation",
            lattice=True,
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, section 3",),
        )
    ]
