"""Tiled: local, with weights shared only between positions that are equal modulo a period."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl
from anarch_plugins.relaxations.tiled.options import TiledOptions


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``tiled``."""
    return [
        RelaxationInfo(
            name="tiled",
            summary="Tiled convolution: weights shared only between positions equal modulo a period.",
            target="anarch_plugins.relaxations.tiled.relaxation:TiledRelaxation",
            lattice=True,
            options=TiledOptions,
            references=("Ngiam, Chen, Chia, Koh, Le, Ng 2010",),
        )
    ]
