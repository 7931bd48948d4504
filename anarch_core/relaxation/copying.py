"""Networks in which some layers are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from anarch_core.network import copied


def replace(model: nn.Module, paths: Sequence[str], module: nn.Module) -> nn.Module:
    """Put ``module`` at every path; the network itself where the path is empty. Changes ``model`` and returns it."""
    for path in paths:
        if not path:
            return module
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = module
    return model


def copy_with(model: nn.Module, new: Mapping[str, tuple[Sequence[str], nn.Module]]) -> nn.Module:
    """A copy of a network with some modules replaced; the replaced ones are never copied (they may be the largest thing in memory).

    Args:
        model: never changed.
        new: by path: all paths the module is registered under, and what is put there.

    Raises:
        SurgeryError: a module holds something that cannot be copied.
    """
    memo: dict[int, Any] = {id(model.get_submodule(paths[0])): module for paths, module in new.values()}
    made = copied(model, memo)
    for paths, module in new.values():
        made = replace(made, paths, module)
    return made
