"""Workers in a Ray cluster, or in a Ray of their own on this machine."""

from __future__ import annotations

from anarch_core.plugin import WorkersInfo, hookimpl
from anarch_plugins.workers.ray.options import RayOptions


@hookimpl
def anarch_workers() -> list[WorkersInfo]:
    """Register the workers."""
    return [
        WorkersInfo(
            name="ray",
            summary="Trains in a Ray cluster, on as many of its machines as have room; no file system has to be shared.",
            target="anarch_plugins.workers.ray.workers:RayWorkers",
            options=RayOptions,
            remote=True,
        )
    ]
