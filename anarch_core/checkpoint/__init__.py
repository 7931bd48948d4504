"""Networks and named tensors on disk, as safetensors files: written whole or not at all, equal content giving equal bytes.

A door for tools. Reading a header takes no torch; it is imported when tensors are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anarch_core.checkpoint.file import read_header
    from anarch_core.checkpoint.network import load, save
    from anarch_core.checkpoint.state import load_state, save_state

__all__ = ["load", "load_state", "read_header", "save", "save_state"]

_HOMES = {"read_header": "file", "load": "network", "save": "network", "load_state": "state", "save_state": "state"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
