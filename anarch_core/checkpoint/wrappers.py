"""What the wrappers of PyTorch do to the names of parameters: a file has those of the network inside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from anarch_core.network import COMPILED

T = TypeVar("T")

_PARALLEL = "module"


def uncompiled(name: str) -> str:
    """A dotted name without what ``torch.compile`` adds where a part of a network is compiled: ``"net._orig_mod.0"`` -> ``"net.0"``."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def renamed(tensors: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    """Tensors, or what is said of them, by the names that a network has for them, where the two differ by wrappers alone.

    Where that is ambiguous, they keep their names.
    """
    own = {_plain(name): name for name in names}
    result = {name if name in names else own.get(_plain(name), name): tensor for name, tensor in tensors.items()}
    return result if len(own) == len(names) and len(result) == len(tensors) else dict(tensors)


def _plain(name: str) -> str:
    """A dotted name without what any wrapper adds: ``"module._orig_mod.features.0.weight"`` -> ``"features.0.weight"``."""
    parts = uncompiled(name).split(".")
    while len(parts) > 1 and parts[0] == _PARALLEL:
        parts = parts[1:]
    return ".".join(parts)
