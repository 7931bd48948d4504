"""anarch: architectural relaxation in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from anarch_core.hookspecs import API_VERSION, hookimpl

if TYPE_CHECKING:
    from anarch_core.checkpoint import load, save
    from anarch_core.config import RunConfig
    from anarch_core.relaxing import Relaxed, drift, project, relax
    from anarch_core.results import Results
    from anarch_core.runner import resume, run

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "Relaxed",
    "Results",
    "RunConfig",
    "__version__",
    "drift",
    "hookimpl",
    "load",
    "project",
    "relax",
    "resume",
    "run",
    "save",
]

# PEP 562: torch is imported when one of these is first used, never by `anarch --help`.
_LAZY = {
    "Relaxed": "anarch_core.relaxing",
    "drift": "anarch_core.relaxing",
    "project": "anarch_core.relaxing",
    "relax": "anarch_core.relaxing",
    "load": "anarch_core.checkpoint",
    "save": "anarch_core.checkpoint",
    "RunConfig": "anarch_core.config",
    "Results": "anarch_core.results",
    "resume": "anarch_core.runner",
    "run": "anarch_core.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
