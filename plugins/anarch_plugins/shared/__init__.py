"""Weight sharing without locality: one kernel as large as the image, slid over every position."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.api import RelaxationInfo
from anarch_core.hookspecs import hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``shared``."""
    return [
        RelaxationInfo(
            name="shared",
            summary="Global kernel: weight sharing without locality.",
            target="anarch_plugins.shared.relaxation:SharedRelaxation",
        )
    ]
