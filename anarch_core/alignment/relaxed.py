"""Relaxed layers: channels lie in their parameters as in those of the layers that were relaxed, at all positions together."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd

from anarch_core.alignment.channels import spread
from anarch_core.alignment.following import Followed
from anarch_core.alignment.slots import View
from anarch_core.layers.base import RelaxedLayer
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer


def understand_layer(followed: Followed, path: str, layer: RelaxedLayer, args: Any, output: Any) -> None:
    """Say what the channels of a relaxed layer's output are, and where they lie in its parameters."""
    if isinstance(layer, ConstrainedLayer):
        conv = layer.constrained
        if isinstance(conv, _ConvNd) and conv.groups > 1:
            _keep_groups(followed, path, conv.groups, args, output)
        return
    if isinstance(layer, LatticeLayer) and _lattice(followed, path, layer, args[0], output):
        return
    followed.give_up(args, output, f"how the channels of a layer of {layer.relaxation} lie in its parameters is not known")


def _lattice(followed: Followed, path: str, layer: LatticeLayer, x: torch.Tensor, output: torch.Tensor) -> bool:
    geometry = layer.geometry
    axis = x.ndim - len(geometry.axes) - 1
    incoming = followed.channels.along(followed.labels(x), axis)
    groups, outputs, inputs = geometry.channel_block
    view = _dense_view(layer) if isinstance(layer, FullyConnectedLayer) else layer.weight_view
    if incoming is None or view(layer.weight.detach()).numel() != layer.weight.numel():
        return False
    depthwise = groups > 1 and outputs == inputs == 1
    outgoing = incoming if depthwise else followed.channels.fresh(geometry.out_channels)
    if isinstance(layer, FullyConnectedLayer):
        followed.slot(layer.weight, 0, outgoing, view=view)
        followed.slot(layer.weight, 2, incoming, view=view)
        if groups > 1 and not depthwise:
            _fence(followed, path, groups, incoming, outgoing)
    else:
        d = len(geometry.axes)
        if depthwise:
            followed.slot(layer.weight, d, incoming, view=view)
        for group, (own, others) in enumerate(() if depthwise else zip(outgoing.chunk(groups), incoming.chunk(groups), strict=True)):

            def block(tensor: torch.Tensor, group: int = group) -> torch.Tensor:
                return layer.weight_view(tensor).select(d, group)

            followed.slot(layer.weight, d, own, view=block, key=(group,))
            followed.slot(layer.weight, d + 1, others, view=block, key=(group,))
    if layer.bias is not None:
        followed.slot(layer.bias, len(layer.bias_view(layer.bias).shape) - 1, outgoing, view=layer.bias_view)
    if layer.unseen is not None:
        _unseen(followed, layer.unseen, incoming, outgoing, groups, depthwise)
    followed.put(output, spread(outgoing, output.shape, axis))
    return True


def _dense_view(layer: FullyConnectedLayer) -> View:
    geometry = layer.geometry
    shape = (geometry.out_channels, geometry.positions, geometry.in_channels, geometry.pixels)

    def view(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(shape)

    return view


def _unseen(followed: Followed, unseen: torch.Tensor, incoming: torch.Tensor, outgoing: torch.Tensor, groups: int, depthwise: bool) -> None:
    """What is kept of the convolution's weight, as the weight of a convolution is permuted."""
    followed.slot(unseen, 0, outgoing)
    if depthwise:
        return
    count = len(outgoing) // groups
    for group, others in enumerate(incoming.chunk(groups)):

        def block(tensor: torch.Tensor, start: int = group * count) -> torch.Tensor:
            return tensor.narrow(0, start, count)

        followed.slot(unseen, 1, others, view=block, key=(group,))


def _keep_groups(followed: Followed, path: str, groups: int, args: Any, output: torch.Tensor) -> None:
    """A convolution that had groups keeps them apart, so that permuting it is permuting what it came from."""
    dims = output.ndim - args[0].ndim
    axis = 1 if dims == 0 and output.ndim > 2 else 0
    incoming, outgoing = (followed.channels.along(followed.labels(each), axis) for each in (args[0], output))
    if incoming is None or outgoing is None:
        followed.give_up(args, output, "its channels are not along one axis")
    elif groups == len(incoming) == len(outgoing):
        followed.channels.tie(incoming, outgoing)
    else:
        _fence(followed, path, groups, incoming, outgoing)


def _fence(followed: Followed, path: str, groups: int, *sides: torch.Tensor) -> None:
    for side, channels in enumerate(sides):
        for group, own in enumerate(channels.chunk(groups)):
            followed.fence((path, side, group), own)
