"""Modules of which a process holds a part, and which parts these are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn

from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shards import Shards


class SharedOut(ABC):
    """A module of which this process holds some output channels.

    Attributes:
        shards: the processes that hold it together.
    """

    shards: Shards

    @property
    @abstractmethod
    def cuts(self) -> Mapping[str, Cut]:
        """What this process holds, by the name of a parameter or a buffer."""


def shards_of(model: nn.Module) -> Shards | None:
    """The processes that hold a network together; None where this one has all of it."""
    return next((module.shards for module in model.modules() if isinstance(module, SharedOut)), None)


def cuts_of(model: nn.Module) -> dict[str, Cut]:
    """What this process holds of the parameters and buffers of a network, by name; of those that are not named it holds all."""
    found: dict[str, Cut] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SharedOut):
            found |= {f"{path}.{name}" if path else name: cut for name, cut in module.cuts.items()}
    return found


def numbers(model: nn.Module) -> int:
    """How many parameters a network has, of whom whichever process holds them."""
    cuts = cuts_of(model)
    return sum(cuts[name].numbers if name in cuts else parameter.numel() for name, parameter in model.named_parameters())
