"""Networks and named tensors on disk, as safetensors files: written whole or not at all, equal content giving equal bytes.

A door for tools. Reading a header takes no torch; it is imported when tensors are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.lazy import lazy_names

if TYPE_CHECKING:
    from anarch_core.checkpoint.file import read_header
    from anarch_core.checkpoint.network import load, save
    from anarch_core.checkpoint.state import load_state, save_state

__all__ = ["load", "load_state", "read_header", "save", "save_state"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "read_header": "anarch_core.checkpoint.file",
        "load": "anarch_core.checkpoint.network",
        "save": "anarch_core.checkpoint.network",
        "load_state": "anarch_core.checkpoint.state",
        "save_state": "anarch_core.checkpoint.state",
    },
)
