"""What stands where weights were tied."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from anarch_core.layers import ConstrainedLayer
from anarch_plugins.relaxations.untie.per_call import PerCall


class UntiedLayer(ConstrainedLayer):
    """A parameter of its own in each place of one that was tied."""


class TakingTurns(UntiedLayer):
    """A module of its own for each call of a pass; with buffers of its own, such as the running statistics of batch norm.

    Attributes:
        free: the modules.
    """

    free: PerCall

    def begin_pass(self) -> None:
        """The next call goes to the first module."""
        self.free.begin_pass()

    def constrained_buffers(self) -> Mapping[str, torch.Tensor]:
        """Means over the modules; of whole numbers, those of the first."""
        found = [dict(module.named_buffers()) for module in self.free.copies]
        return {
            name: torch.stack([each[name] for each in found]).mean(0) if first.is_floating_point() else first
            for name, first in found[0].items()
        }
