"""What stands where weights were tied."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import prune

from anarch_core.errors import SurgeryError
from anarch_core.layers import ConstrainedLayer
from anarch_plugins.relaxations.untie.per_call import PerCall


class UntiedLayer(ConstrainedLayer):
    """A parameter of its own in each place of one that was tied."""

    def initialise(self, free: nn.Module) -> None:
        """As of any layer, also where weights are pruned.

        Raises:
            SurgeryError: the default initialisation of a parameter is not known.
        """
        computed = [name for name, _ in free.named_parameters() if "parametrizations." in name]
        if computed:
            msg = f"the default initialisation of {', '.join(computed)} is not known, since weights are parametrized"
            raise SurgeryError(msg)
        for module in free.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, prune.BasePruningMethod):  # what is reset is the weight that is computed; let it be the parameter
                    setattr(module, hook._tensor_name, module.get_parameter(f"{hook._tensor_name}_orig").detach())
        super().initialise(free)


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
