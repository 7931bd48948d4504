"""The relaxation ``grow``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import attrs
import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.constraint import NOTHING, Constraint, Incidence
from anarch_core.lattice import Axis, ConvGeometry, Convolution
from anarch_core.layers import Link
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site, constrained_module, refusal_of_convolution
from anarch_plugins.relaxations.grow.options import GrowOptions


class GrowRelaxation(AbstractConstraintRelaxation):
    """A kernel of k taps becomes one of k + 2 n, padding grows with it, and the old taps read what they read."""

    name = "grow"
    targets = (_ConvNd,)

    options: GrowOptions

    def idle(self, site: Site) -> str | None:
        """Layers where taps beside the kernel would read padded zeros and nothing else."""
        module = constrained_module(site.module)
        if refusal_of_convolution(module, self.name) or not site.input_shape:
            return None
        conv = cast(Convolution, module)
        if len(self.options.by) not in (1, len(conv.kernel_size)):
            return None
        axes = ConvGeometry.of(conv, site.input_shape[-len(conv.kernel_size) :]).axes
        if any(by and adds_something(axis) for axis, by in zip(axes, self._by(axes), strict=True)):
            return None
        return "taps beside its kernel would read nothing but padded zeros"

    def refusal(self, site: Site) -> str | None:
        """Layers that are no convolutions, have another number of axes, or pad by pixels that their inputs do not have."""
        module = constrained_module(site.module)
        reason = super().refusal(site) or refusal_of_convolution(module, self.name)
        if reason is not None:
            return reason
        conv, by = cast(Convolution, module), self.options.by
        if len(by) not in (1, len(conv.kernel_size)):
            return (
                f"its kernel has {len(conv.kernel_size)} axes, and 'by' says how {len(by)} grow; give one number for all, or one per axis"
            )
        if conv.padding_mode not in ("reflect", "circular"):
            return None
        if not site.input_shape:
            return f"its padding is {conv.padding_mode} and it is called at several sizes, where it is not known how far that reaches"
        for axis in self._grown(ConvGeometry.of(conv, site.input_shape[-len(conv.kernel_size) :])).axes:
            most, padding = axis.size - (conv.padding_mode == "reflect"), max(axis.before, axis.after)
            if padding > most:
                return (
                    f"its {conv.padding_mode} padding would be {padding}, and an input of {axis.size} has no more than {most} pixels for it"
                )
        return None

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        """A convolution with a larger kernel."""
        conv = cast(Convolution, module)
        geometry = ConvGeometry.of(conv, conv.kernel_size)  # at any size of the input
        free = self._grown(geometry).convolution(conv.weight)
        if conv.bias is not None:
            free.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=conv.bias.requires_grad)
        channels = Incidence.identity(math.prod(conv.weight.shape[:2]))
        taps = [middle(axis.kernel, by) for axis, by in zip(geometry.axes, self._by(geometry.axes), strict=True)]
        constraint = Constraint(free.weight.shape, conv.weight.shape, [channels, *taps])
        fan_in = free.weight[0].numel()
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint, variance=1 / (3 * fan_in))])

    def _by(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        return self.options.by * len(axes) if len(self.options.by) == 1 else self.options.by

    def _grown(self, geometry: ConvGeometry) -> ConvGeometry:
        axes = tuple(grown(axis, by) for axis, by in zip(geometry.axes, self._by(geometry.axes), strict=True))
        padding = "same" if geometry.padding == "same" else tuple(axis.before for axis in axes)
        return attrs.evolve(geometry, axes=axes, padding=padding)


def grown(axis: Axis, by: int) -> Axis:
    """An axis with ``by`` more taps on each side, at the same positions."""
    pixels = by * axis.dilation
    return attrs.evolve(axis, kernel=axis.kernel + 2 * by, before=axis.before + pixels, after=axis.after + pixels)


def adds_something(axis: Axis) -> bool:
    """Whether the taps next to the kernel would read a pixel at any position."""
    return bool((grown(axis, 1).reads()[:, [0, -1]] != NOTHING).any())


def middle(taps: int, by: int) -> Incidence:
    """A kernel amid zeros: of taps + 2 by entries, those in the middle have the labels 0 ... taps - 1."""
    inside = np.arange(-by, taps + by)
    return Incidence.of(np.where((inside >= 0) & (inside < taps), inside, NOTHING), taps)
