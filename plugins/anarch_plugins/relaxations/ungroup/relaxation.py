"""The relaxation ``ungroup``."""

from __future__ import annotations

import math
from typing import cast

import attrs
import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.constraint import NOTHING, Constraint, Incidence
from anarch_core.lattice import ConvGeometry, Convolution
from anarch_core.layers import Link
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site, constrained_module, refusal_of_convolution
from anarch_plugins.relaxations.ungroup.options import UngroupOptions


class UngroupRelaxation(AbstractConstraintRelaxation):
    """A convolution of g groups becomes one of g' groups: its weight is block-diagonal, and the zeros beside the blocks are freed."""

    name = "ungroup"
    targets = (_ConvNd,)

    options: UngroupOptions

    def idle(self, site: Site) -> str | None:
        """Layers that have as few groups."""
        groups = getattr(constrained_module(site.module), "groups", None)  # layers of the lattice have them, too
        if groups not in (1, self.options.groups):
            return None
        return "it has one group" if groups == 1 else f"it has {groups} groups"

    def refusal(self, site: Site) -> str | None:
        """Layers that are no convolutions, and such whose groups cannot be put together to as many as are wanted."""
        module = constrained_module(site.module)
        reason = super().refusal(site) or refusal_of_convolution(module, self.name)
        if reason is not None:
            return reason
        groups = cast(Convolution, module).groups
        if groups % self.options.groups == 0:
            return None
        return f"its {groups} groups cannot become {self.options.groups}, which is no divisor of {groups}"

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        """A convolution of fewer groups."""
        conv = cast(Convolution, module)
        geometry = ConvGeometry.of(conv, conv.kernel_size)  # at any size of the input
        free = attrs.evolve(geometry, groups=self.options.groups).convolution(conv.weight)
        if conv.bias is not None:
            free.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=conv.bias.requires_grad)
        constraint = blocks(conv.weight.shape, conv.groups, self.options.groups)
        fan_in = free.weight[0].numel()
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint, variance=1 / (3 * fan_in))])


def blocks(shape: tuple[int, ...], groups: int, fewer: int) -> Constraint:
    """The weight of a grouped convolution in one of fewer groups.

    Every output reads groups / fewer blocks of input channels, one of which was its own group's: of the pairs (output, block), that one
    has the output for its label, and the others have none. Within a block, input channels and taps are as they were.

    Args:
        shape: of the grouped weight, [out, in / groups, *kernel].
        groups: of the constrained convolution.
        fewer: of the relaxed one, a divisor of ``groups``.
    """
    outputs, merged = shape[0], groups // fewer
    own = np.arange(outputs) // (outputs // groups) % merged
    labels = np.where(np.arange(merged) == own[:, None], np.arange(outputs)[:, None], NOTHING)
    factors = [Incidence.of(labels, outputs), Incidence.identity(math.prod(shape[1:]))]
    return Constraint((outputs, merged * shape[1], *shape[2:]), shape, factors)
