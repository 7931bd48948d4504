"""Workers that are jobs of Slurm."""

from __future__ import annotations

from anarch_core.plugin import WorkersInfo, hookimpl
from anarch_plugins.workers.slurm.options import SlurmOptions


@hookimpl
def anarch_workers() -> list[WorkersInfo]:
    """Register the workers."""
    return [
        WorkersInfo(
            name="slurm",
            summary="A Slurm job for each segment, on a file system that all nodes share; `anarch resume` finds jobs that go on.",
            target="anarch_plugins.workers.slurm.workers:SlurmWorkers",
            options=SlurmOptions,
            remote=True,
        )
    ]
