"""Which layers of a network are trained as chains, and the network while they are."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.modules import module as hooks

from anarch_core.layers.base import whole_modules
from anarch_core.ops.chain import Chain
from anarch_core.ops.full_product import FullProduct
from anarch_core.ops.fused import is_watched
from anarch_core.ops.ordinary import needs_ordinary_operations
from anarch_core.ops.piece import Piece
from anarch_core.training.pieces import Forward, is_plain, piece_of


class Chained:
    """A network whose small layers can be taken as chains: its parameters, its modules and what it computes are as they were.

    Runs of layers inside an ``nn.Sequential`` are one chain, a convolution anywhere else is one of its own. What is made for a size of
    input is kept, so a network is to be looked at once and used often; what has changed of its modules is seen when it is taken again.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen: list[object] = []
        self._parameters: list[nn.Parameter] = []  # held, so that what has their identity are they
        self._runs: dict[nn.Module, _Runs] = {}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, the network goes through its chains where it is trained on a CPU in its own arithmetic, and they pay."""
        self._look()
        with ExitStack() as put_back:
            for module, runs in self._runs.items() if not _globally_hooked() else ():
                if not is_plain(module):
                    continue
                module.forward = runs.forward
                put_back.callback(delattr, module, "forward")
            yield

    def whole(self, x: torch.Tensor) -> Chain | None:
        """The chain that the network is for such inputs, to be used inside :meth:`taken`; None where it is not one."""
        runs = self._runs.get(self._model)
        if runs is None or x.requires_grad or not is_plain(self._model, runs.forward):
            return None
        chain = runs.whole(x)
        return None if chain is None or any(map(is_watched, chain.parameters)) else chain

    def chains(self) -> Sequence[Chain]:
        """Those that were made so far."""
        return [chain for runs in self._runs.values() for chain in runs.chains()]

    def _look(self) -> None:
        """Begin anew where modules, their settings or their parameters are others than when they were seen last."""
        modules = list(self._model.modules())
        held = [parameter for module in modules for parameter in module._parameters.values() if parameter is not None]
        seen = [*((module, type(module), is_plain(module), _settings(module)) for module in modules), *map(id, held)]
        if seen != self._seen:
            tied = {parameter for parameter, holders in Counter(held).items() if holders > 1}
            self._seen, self._parameters = seen, held
            self._runs = {module: _Runs(module, leaves, tied) for module, leaves in _places(self._model)}


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
    if type(module) is nn.Sequential and (module is root or is_plain(module)):
        for child in module:
            yield from _leaves(child, root)
    else:
        yield module


def _settings(module: nn.Module) -> list[object]:
    """The numbers and words that a module is made with, and its mode."""
    plain = (int, str)
    return [
        each
        for each in vars(module).values()
        if isinstance(each, plain) or (isinstance(each, tuple) and all(isinstance(part, plain) for part in each))
    ]


def _globally_hooked() -> bool:
    return bool(
        hooks._global_forward_hooks or hooks._global_forward_pre_hooks or hooks._global_backward_hooks or hooks._global_backward_pre_hooks
    )


class _Runs:
    """The modules that one calls, one after another, those that make chains as chains.

    Args:
        owner: the module.
        leaves: that it calls; itself where it is a convolution.
        tied: parameters that several modules hold, each of which may do anything with them.
    """

    def __init__(self, owner: nn.Module, leaves: Sequence[nn.Module], tied: Set[nn.Parameter]) -> None:
        self._owner, self._leaves, self._tied = owner, leaves, tied
        self._found: dict[tuple[object, ...], Sequence[Forward]] = {}
        self.forward: Forward = self._forward

    def __getstate__(self) -> dict[str, object]:
        """A network may be copied, or pickled, while it is taken: without the memory of its chains."""
        return {**vars(self), "_found": {}}

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
            pieces = self._pieces(left, x)
            found.append(Chain(pieces) if _gains(pieces) else self._called(left[0]))
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
            pieces = self._pieces(self._leaves, x)
            if len(pieces) < len(self._leaves) or not _gains(pieces):
                return None
            self._found[key] = [Chain(pieces)]
        first, *others = self._found[key]
        return first if isinstance(first, Chain) and not others else None

    def _pieces(self, leaves: Sequence[nn.Module], x: torch.Tensor) -> list[Piece]:
        """The longest run of layers from the first on that can be taken as a chain."""
        found: list[Piece] = []
        shape = tuple(x.shape[1:])
        for leaf in leaves:
            piece = piece_of(leaf, shape)
            if piece is None or not all(self._can_train(parameter, x) for parameter in piece.parameters) or not piece.pays(len(x)):
                break
            found.append(piece)
            shape = piece.output_shape
        return found

    def _can_train(self, parameter: nn.Parameter, x: torch.Tensor) -> bool:
        return parameter.dtype == x.dtype and parameter not in self._tied and not needs_ordinary_operations(x, parameter)

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
        and not torch.is_inference_mode_enabled()  # which leaves its mark on the memory that would be used again
    )


def _gains(pieces: Sequence[Piece]) -> bool:
    """Whether a chain begins with weights, and is more than a dense layer, which gains nothing by it."""
    trained = [piece for piece in pieces if piece.parameters]
    return bool(trained) and pieces[0] is trained[0] and not (len(trained) == 1 and isinstance(trained[0], FullProduct))
