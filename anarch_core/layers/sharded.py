"""Layers of the lattice of which a process holds some output channels.

A :class:`ShardedLayer` is the layer of its family for a convolution with fewer output channels, with a map before it and one after it. Its
parameters have the names that they have where one process holds all, and so has what is saved of them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, cast

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.errors import SurgeryError
from anarch_core.lattice.geometry import ConvGeometry, Convolution
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.sharding.cut import Cut
from anarch_core.sharding.draws import draw_own
from anarch_core.sharding.maps import gather, spread
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import SharedOut


class ShardedLayer(LatticeLayer, SharedOut):
    """A layer of the lattice, of which this process holds a stretch of output channels.

    Its inputs and outputs are whole, and the same on every process; so are projection and drift. Parameters, their gradients and their
    parts are this process's.

    Attributes:
        geometry: of the convolution with this process's output channels.
        whole: of the whole convolution.
    """

    whole: ConvGeometry

    @property
    def out_channels(self) -> int:
        """Channels of the output, of all processes."""
        return self.whole.out_channels

    @property
    def own(self) -> range:
        """The output channels that this process holds."""
        return self.shards.stretch(self.whole.out_channels)

    @property
    def cuts(self) -> Mapping[str, Cut]:
        channels, own, stands = self.whole.out_channels, self.own, type(self)
        views = {"weight": (-2, self.weight_view, stands.weight_shape), "bias": (-1, self.bias_view, stands.bias_shape)}
        found = {}
        for name, (axis, view, shape) in views.items():
            part = getattr(self, name)
            if part is not None:
                part = torch.empty(part.shape, device="meta")
                found[name] = Cut.of(part, view(part).stride(axis), shape(self.family, self.whole), channels, own)
        if self.unseen is not None:
            found["unseen"] = Cut.of(self.unseen, self.unseen[0].numel(), (channels, *self.unseen.shape[1:]), channels, own)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As of the whole layer: [batch, in_channels, *input size] to [batch, out_channels, *output size]."""
        x, single = self.batched(x)
        y = gather(super().forward(spread(x, self.shards)), self.shards, self.whole.out_channels)
        return y.squeeze(0) if single else y

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As the whole layer draws them: every process draws all, and keeps its own. On a CPU they are the numbers of one process.

        Raises:
            SurgeryError: the family has an initialisation of its own.
        """
        if not _draws_as_lattice_layers(type(self)):
            msg = f"{self.relaxation} has an initialisation of its own, which cannot be shared out among processes; train it in one"
            raise SurgeryError(msg)
        bounds = {"weight": self.weight_bound, "bias": self.bias_bound}
        for name, cut in self.cuts.items():
            if name in bounds:
                part = getattr(self, name)
                draw_own(part.view(-1), [(0, cut.numbers, cut)], functools.partial(_uniform, part))
                part.mul_(bounds[name]().to(part))

    @torch.no_grad()
    def project(self) -> nn.Module:
        part = cast(nn.Conv2d, super().project())
        whole = self.whole.convolution(part.weight)
        for name, parameter in part.named_parameters():
            target = whole.get_parameter(name)
            target.copy_(self.shards.gathered(parameter, 0, self.whole.out_channels))
            target.requires_grad_(parameter.requires_grad)
        return whole.train(part.training)

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        part = super().drift(reference)
        names = [field.name for field in attrs.fields(Drift) if getattr(part, field.name) is not None and field.name != "initial"]
        own = [*(getattr(part, name) for name in names), *(part.initial or ())]
        totals = self.shards.totals(own)
        initial = None if part.initial is None else (totals[-3], totals[-2], totals[-1])
        return Drift(**dict(zip(names, totals, strict=False)), initial=initial)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        own = self.own
        return f"{super().extra_repr()}, output channels {own.start} to {own.stop - 1} of {self.whole.out_channels}"


def sharded(layer: LatticeLayer, whole: ConvGeometry, shards: Shards) -> ShardedLayer:
    """Make a layer of a process's output channels a part of the whole layer; changes it and returns it.

    Args:
        layer: of the convolution with this process's output channels.
        whole: the geometry of the whole convolution.
        shards: the processes that hold the others.
    """
    layer.__class__ = _sharded_class(type(layer))
    part = cast(ShardedLayer, layer)
    part.whole, part.shards = whole, shards
    return part


def narrow_convolution(conv: Convolution, own: range) -> Convolution:
    """A convolution with some of the output channels of another, whose memory it shares."""
    narrow = copy.copy(conv)
    narrow._parameters = dict(conv._parameters)
    narrow.out_channels = len(own)
    for name, parameter in conv.named_parameters(recurse=False):
        part = parameter.detach()[own.start : own.stop]
        narrow._parameters[name] = nn.Parameter(part, requires_grad=parameter.requires_grad)
    return narrow


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module; of a part of a layer, that of the layer."""
    return type(module).__mro__[2] if isinstance(module, ShardedLayer) else type(module)


@functools.cache
def _sharded_class(kind: type[LatticeLayer]) -> type[LatticeLayer]:
    names: dict[str, Any] = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(f"Sharded{kind.__name__}", (ShardedLayer, kind), names)


def _draws_as_lattice_layers(kind: type) -> bool:
    """Whether the class that a sharded one was made of is initialised by :meth:`LatticeLayer.reset_parameters`."""
    makers = [each for each in kind.__mro__ if "reset_parameters" in vars(each)]
    return makers[:2] == [ShardedLayer, LatticeLayer]


def _uniform(like: torch.Tensor, count: int) -> torch.Tensor:
    """So many numbers, uniform in ±1."""
    return like.new_empty(count).uniform_(-1, 1)
