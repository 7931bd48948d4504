"""Workers on this machine."""

from __future__ import annotations

from anarch_core.plugin import WorkersInfo, hookimpl


@hookimpl
def anarch_workers() -> list[WorkersInfo]:
    """Register the workers."""
    return [
        WorkersInfo(
            name="local",
            summary="Trains on this machine, --jobs segments at once, each in a process of its own.",
            together=True,
            target="anarch_plugins.workers.local.workers:LocalWorkers",
        )
    ]
