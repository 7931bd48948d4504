"""Weight sharing without locality: one kernel as large as the image, slid over every position."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``shared``."""
    return [
        RelaxationInfo(
            name="shared",
            summary="Global kernel: weight sharing without locality.",
            target="anarch_plugins.relaxations.shared.relaxation:SharedRelaxation",
            lattice=True,
        )
    ]
