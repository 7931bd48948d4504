"""Locally connected: local, but every position has weights of its own."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``lcn``."""
    return [
        RelaxationInfo(
            name="lcn",
            summary="Locally connected layer: locality without weight sharing.",
            target="anarch_plugins.relaxations.lcn.relaxation:LocallyConnectedRelaxation",
            lattice=True,
            references=("d'Ascoli, Sagun, Bruna, Biroli 2019, section 3", "Coates, Ng 2011"),
        )
    ]
