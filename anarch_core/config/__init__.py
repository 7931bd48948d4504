"""The settings of a run: defaults, recipes, files, flags, and one complete configuration made of them. Nothing here imports torch.

A door for tools.
"""

from __future__ import annotations

from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig

__all__ = ["RunConfig", "resolve"]
