"""Modules as pieces of a chain: which can be, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn

from anarch_core.lattice.families import CONV
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.base import RelaxedLayer
from anarch_core.layers.lattice_layer import conv_weight_view
from anarch_core.ops.by_position import ByPosition, readable
from anarch_core.ops.full_product import FullProduct
from anarch_core.ops.piece import Piece
from anarch_core.ops.pointwise import RELU, TANH, Flattened, Pointwise

Forward = Callable[[torch.Tensor], torch.Tensor]


def is_plain(module: nn.Module, forward: Forward | None = None) -> bool:
    """Whether calling a module is calling its forward, and that is the one of its class, or the one given."""
    watched = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        not any(getattr(module, name) for name in watched) and vars(module).get("forward") is forward and module._compiled_call_impl is None
    )


def piece_of(module: nn.Module, shape: tuple[int, ...]) -> Piece | None:
    """A module as a piece of a chain, for samples of a shape; None where it cannot be one."""
    if not is_plain(module) or not isinstance(getattr(module, "bias", None), nn.Parameter | None):
        return None
    if isinstance(module, RelaxedLayer):
        piece = module.piece() if module.training and _tells_own(type(module)) else None
        return piece if piece is not None and piece.input_shape == shape and _is_trained(module, piece) else None
    make = KINDS.get(type(module))
    return None if make is None else make(module, shape)


def _is_trained(module: nn.Module, piece: Piece) -> bool:
    """Whether what a piece is trained by are parameters of the module, and not computed of others (``torch.nn.utils.parametrize``)."""
    own = {id(parameter) for parameter in module.parameters()}
    return all(id(parameter) in own for parameter in piece.parameters)


def _tells_own(kind: type[RelaxedLayer]) -> bool:
    """Whether a class that has a forward pass of its own says itself how it is taken in a chain."""
    owner = {name: next(level for level, each in enumerate(kind.__mro__) if name in vars(each)) for name in ("forward", "piece")}
    return owner["piece"] <= owner["forward"]


def _convolution(module: nn.Module, shape: tuple[int, ...]) -> Piece | None:
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not isinstance(module.weight, nn.Parameter):
        return None
    if len(shape) != module.weight.ndim - 1 or shape[0] != module.in_channels:
        return None
    geometry = ConvGeometry.of(module, shape[1:])
    if not readable(CONV, geometry):
        return None
    view = functools.partial(conv_weight_view, geometry)
    ones = [1] * len(geometry.axes)
    bias = cast("nn.Parameter | None", module.bias)
    return ByPosition(CONV, geometry, module.weight, bias, view, lambda bias: bias.view(*ones, -1))


def _dense(module: nn.Module, shape: tuple[int, ...]) -> Piece | None:
    if not isinstance(module, nn.Linear) or not isinstance(module.weight, nn.Parameter) or shape != (module.in_features,):
        return None
    return FullProduct(module.weight, cast("nn.Parameter | None", module.bias), shape, (module.out_features,))


def _flattened(module: nn.Module, shape: tuple[int, ...]) -> Piece | None:
    return Flattened(shape) if (getattr(module, "start_dim", None), getattr(module, "end_dim", None)) == (1, -1) else None


KINDS: Mapping[type[nn.Module], Callable[[nn.Module, tuple[int, ...]], Piece | None]] = {
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.Linear: _dense,
    nn.ReLU: lambda _, shape: Pointwise(shape, RELU),
    nn.Tanh: lambda _, shape: Pointwise(shape, TANH),
    nn.Flatten: _flattened,
}
"""How PyTorch's layers are taken in a chain; those that inherit from them may do anything, and are not."""
