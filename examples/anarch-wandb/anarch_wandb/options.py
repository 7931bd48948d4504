"""Options of ``wandb``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class WandbOptions:
    """Where the runs go; ``--observe wandb:my-project`` sets the first option."""

    project: str = attrs.field(default="anarch", metadata=opt("Project of the runs."))
    mode: Literal["offline", "online", "disabled"] = attrs.field(
        default="offline", metadata=opt("Write files for 'wandb sync', or log in and send everything at once.")
    )
    fork: bool = attrs.field(default=False, metadata=opt("Fork the run of a branch from that of its parent; the server must support it."))
