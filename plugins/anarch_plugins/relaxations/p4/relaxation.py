"""The relaxation ``p4``."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import Link
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site, constrained_module
from anarch_plugins.relaxations.p4.layer import TURNS, P4Conv2d, oriented


class P4Relaxation(AbstractConstraintRelaxation):
    """A convolution over p4 becomes an ordinary one, whose filters were one filter in four orientations."""

    name = "p4"
    targets = (P4Conv2d,)

    def refusal(self, site: Site) -> str | None:
        """Layers of other kinds."""
        module = constrained_module(site.module)
        if type(module) is not P4Conv2d:
            return f"it is a {type(module).__name__}, no convolution over p4"
        return super().refusal(site)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        """The convolution that the layer is at last."""
        layer = cast(P4Conv2d, module)
        inputs = layer.in_channels * (1 if layer.lifting else TURNS)
        free = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            inputs,
            TURNS * layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            bias=layer.bias is not None,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        variance = 1 / (3 * free.weight[0].numel())
        links = [Link(parent="weight", constraint=orientations(layer.weight.shape), variance=variance)]
        if layer.bias is not None:
            alike = Incidence.of(np.repeat(np.arange(layer.out_channels), TURNS), layer.out_channels)
            links.append(Link(parent="bias", constraint=Constraint(free.bias.shape, layer.bias.shape, [alike]), variance=variance))
        return Loosened(free=free, links=links)


def orientations(shape: tuple[int, ...]) -> Constraint:
    """The weight of a convolution over p4 in that of an ordinary one.

    The labels of one output channel's filters are the numbers of its one filter, turned and moved as the layer does it.

    Args:
        shape: of the layer's weight, [out, in, k, k] or [out, in, 4, k, k].
    """
    size = math.prod(shape[1:])
    filters = oriented(torch.arange(size, device="cpu").view(1, *shape[1:]))
    relaxed = (TURNS * shape[0], *filters.shape[1:])
    return Constraint(relaxed, shape, [Incidence.identity(shape[0]), Incidence.of(filters.numpy(), size)])
