"""A module of its own for every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


class Calls:
    """How many calls there were in this pass. No attribute of a module that changes, so that looking at a network leaves it as it was."""

    def __init__(self) -> None:
        self.made = 0


class PerCall(nn.Module):
    """Modules that take turns: the first call of a pass goes to the first, the next to the second.

    Attributes that it does not have are looked up in the first of them.

    Attributes:
        copies: one for each call of a pass.
    """

    def __init__(self, copies: Sequence[nn.Module]) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copies)
        self.calls = Calls()

    def begin_pass(self) -> None:
        """The next call goes to the first copy."""
        self.calls.made = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the copy whose turn it is returns.

        Raises:
            ValueError: there were as many calls in this pass as there are copies.
        """
        if self.calls.made == len(self.copies):
            msg = (
                f"this untied layer has weights for {len(self.copies)} calls in a pass, and this is one more. A pass begins when the "
                "relaxed network is called, not a part of it; a longer input may call the layer more often (untie the network at that "
                "length), and activation checkpointing calls it again in the backward pass (do without it)"
            )
            raise ValueError(msg)
        self.calls.made += 1
        return self.copies[self.calls.made - 1](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            copies = self.__dict__.get("_modules", {}).get("copies")
            if copies is None:
                raise
            return getattr(copies[0], name)
