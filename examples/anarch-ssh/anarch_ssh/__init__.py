"""Workers on machines that can be reached by ssh, and share nothing."""

from __future__ import annotations

from anarch_core.plugin import WorkersInfo, hookimpl
from anarch_ssh.options import SshOptions

anarch_api = (1, 2)


@hookimpl
def anarch_workers() -> list[WorkersInfo]:
    """Register the workers."""
    return [
        WorkersInfo(
            name="ssh",
            summary="Trains on machines that ssh reaches, which share no files with this one.",
            target="anarch_ssh.workers:SshWorkers",
            options=SshOptions,
            remote=True,
        )
    ]
