"""Which layers of a network are trained as chains, and the network while they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn.modules import module as hooks

from anarch_core.lattice.families import CONV
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.base import RelaxedLayer, whole_modules
from anarch_core.layers.lattice_layer import conv_weight_view
from anarch_core.ops.by_position import ByPosition, readable
from anarch_core.ops.chain import Chain
from anarch_core.ops.full_product import FullProduct
from anarch_core.ops.ordinary import needs_ordinary_operations
from anarch_core.ops.piece import Piece
from anarch_core.ops.pointwise import RELU, TANH, Flattened, Pointwise

Forward = Callable[[torch.Tensor], torch.Tensor]


class Chained:
    """A network whose small layers can be taken as chains: its parameters, its modules and what it computes are as they were.

    Runs of layers inside an ``nn.Sequential`` are one chain, a convolution anywhere else is one of its own. What is made for a size of
    input is kept, so a network is to be looked at once and used often.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._runs = {module: _Runs(module, leaves) for module, leaves in _places(model)}
        self._known: list[tuple[nn.Parameter, int]] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, the network goes through its chains where it is trained on a CPU in its own arithmetic, and they pay."""
        parameters = [(parameter, parameter.data_ptr()) for parameter in self._model.parameters()]
        if len(parameters) != len(self._known) or any(a is not b or p != q for (a, p), (b, q) in zip(parameters, self._known, strict=True)):
            self._known = parameters
            for runs in self._runs.values():
                runs.forget()
        with ExitStack() as put_back:
            for module, runs in self._runs.items() if not _globally_hooked() else ():
                if not _plain(module):
                    continue
                module.forward = runs.forward
                put_back.callback(delattr, module, "forward")
            yield

    def whole(self, x: torch.Tensor) -> Chain | None:
        """The chain that the network is for such inputs, to be used inside :meth:`taken`; None where it is not one."""
        runs = self._runs.get(self._model)
        return runs.whole(x) if runs is not None and _plain(self._model, runs.forward) else None

    def chains(self) -> Sequence[Chain]:
        """Those that were made so far."""
        return [chain for runs in self._runs.values() for chain in runs.chains()]


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Modules whose forward passes may be taken otherwise, each with the modules that it calls one after another."""
    inside: set[nn.Module] = set()
    for _, module in whole_modules(model):
        if module in inside:
            continue
        if type(module) in (nn.Sequential, nn.Conv1d, nn.Conv2d, nn.Conv3d):
            leaves = list(_leaves(module, module))
            inside.update(leaves)
            yield module, leaves


def _leaves(module: nn.Module, root: nn.Module) -> Iterator[nn.Module]:
    """What a sequential calls, through those inside of it that nobody watches; any other module is its own."""
    if type(module) is nn.Sequential and (module is root or _plain(module)):
        for child in module:
            yield from _leaves(child, root)
    else:
        yield module


def _plain(module: nn.Module, forward: Forward | None = None) -> bool:
    """Whether calling a module is calling its forward, and that is the one of its class, or the one given."""
    watched = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        not any(getattr(module, name) for name in watched) and vars(module).get("forward") is forward and module._compiled_call_impl is None
    )


def _globally_hooked() -> bool:
    return bool(
        hooks._global_forward_hooks or hooks._global_forward_pre_hooks or hooks._global_backward_hooks or hooks._global_backward_pre_hooks
    )


class _Runs:
    """The modules that one calls, one after another, those that make chains as chains.

    Args:
        owner: the module.
        leaves: that it calls; itself where it is a convolution.
    """

    def __init__(self, owner: nn.Module, leaves: Sequence[nn.Module]) -> None:
        self._owner, self._leaves = owner, leaves
        self._found: dict[tuple[object, ...], Sequence[Forward]] = {}
        self.forward: Forward = self._forward

    def forget(self) -> None:
        """The parameters are others."""
        self._found.clear()

    def chains(self) -> Iterator[Chain]:
        """Those that were made so far."""
        for runs in self._found.values():
            yield from (run for run in runs if isinstance(run, Chain))

    def _forward(self, input: torch.Tensor) -> torch.Tensor:
        """As that of the module."""
        x = input
        if not _can_be_chained(x):
            for leaf in self._leaves:
                x = self._called(leaf)(x)
            return x
        if self.whole(x) is not None or (x.shape, x.dtype) in self._found:
            for run in self._found[x.shape, x.dtype]:
                x = run(x)
            return x
        key, found = (x.shape, x.dtype), list[Forward]()
        left = list(self._leaves)
        while left:
            pieces = _pieces(left, x)
            found.append(Chain(pieces) if _gains(pieces, len(x)) else self._called(left[0]))
            del left[: len(pieces) if isinstance(found[-1], Chain) else 1]
            x = found[-1](x)
        self._found[key] = found
        return x

    def whole(self, x: torch.Tensor) -> Chain | None:
        """The chain that the modules are all of."""
        if not _can_be_chained(x):
            return None
        key = x.shape, x.dtype
        if key not in self._found:
            pieces = _pieces(self._leaves, x)
            if len(pieces) < len(self._leaves) or not _gains(pieces, len(x)):
                return None
            self._found[key] = [Chain(pieces)]
        first, *others = self._found[key]
        return first if isinstance(first, Chain) and not others else None

    def _called(self, leaf: nn.Module) -> Forward:
        forward: Forward = leaf
        return functools.partial(type(leaf).forward, leaf) if leaf is self._owner else forward


def _can_be_chained(x: object) -> bool:
    """Whether it is an ordinary batch of numbers, to be computed with at full precision."""
    return (
        isinstance(x, torch.Tensor)
        and x.is_cpu
        and x.ndim > 1
        and x.dtype in (torch.float32, torch.float64)
        and not needs_ordinary_operations(x, x)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _pieces(leaves: Sequence[nn.Module], x: torch.Tensor) -> list[Piece]:
    """The longest run of layers from the first on that can be taken as a chain."""
    found: list[Piece] = []
    shape = tuple(x.shape[1:])
    for leaf in leaves:
        piece = piece_of(leaf, shape)
        if piece is None or any(parameter.dtype != x.dtype for parameter in piece.parameters) or not piece.pays(len(x)):
            break
        found.append(piece)
        shape = piece.output_shape
    return found


def _gains(pieces: Sequence[Piece], batch: int) -> bool:
    """Whether a chain begins with weights, and has more than one dense layer could gain by it."""
    trained = [piece for piece in pieces if piece.parameters]
    return bool(trained) and pieces[0] is trained[0] and not (len(trained) == 1 and isinstance(trained[0], FullProduct))


def piece_of(module: nn.Module, shape: tuple[int, ...]) -> Piece | None:
    """A module as a piece of a chain, for samples of a shape; None where it cannot be one."""
    if not _plain(module):
        return None
    if isinstance(module, RelaxedLayer):
        piece = module.piece() if _tells_own(type(module)) else None
        return piece if piece is not None and piece.input_shape == shape else None
    make = KINDS.get(type(module))
    return None if make is None else make(module, shape)


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
