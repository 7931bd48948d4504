"""What a relaxation is tried on: a layer of any kind, and what a network calls it with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from anarch_core.layers.base import RelaxedLayer
from anarch_core.network import copied
from anarch_core.testing.snapshot import relative

__all__ = ["Case"]

Given = tuple[Any, ...]


def _arguments(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


@attrs.frozen(eq=False, repr=False)
class Case:
    """A layer, and what a network calls it with.

    Attributes:
        module: in float64, with random weights; parameters that are all zeros or ones are moved off them where it is used.
        args: positional arguments; what is no tuple is the only one. Tensors of numbers in float64; others (indices, masks) as they are.
        kwargs: keyword arguments.
        calls: how often a network calls the layer in one pass.
    """

    module: nn.Module
    args: tuple[Any, ...] = attrs.field(converter=_arguments)
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    calls: int = 1

    def __repr__(self) -> str:
        given = [f"{_in_words(value)}" for value in self.args] + [f"{name}={_in_words(value)}" for name, value in self.kwargs.items()]
        often = f", {self.calls} calls" if self.calls != 1 else ""
        return f"Case({self.module}, {', '.join(given)}{often})"

    @property
    def x(self) -> Any:
        """The first argument."""
        return self.given[0]

    @property
    def given(self) -> Given:
        """All arguments, those that have names last."""
        return (*self.args, *self.kwargs.values())

    def fresh(self) -> Case:
        """A deep copy."""
        return attrs.evolve(copy.deepcopy(self.having(nn.Identity())), module=copied(self.module))

    def giving(self, *given: Any) -> Case:
        """The same layer, given other arguments, in the order of :attr:`given`."""
        count = len(self.args)
        return attrs.evolve(self, args=tuple(given[:count]), kwargs=dict(zip(self.kwargs, given[count:], strict=True)))

    def having(self, module: nn.Module) -> Case:
        """Another layer, given the same."""
        return attrs.evolve(self, module=module)

    def to(self, target: torch.dtype | torch.device) -> Case:
        """The case in another dtype or on another device. The module is moved itself, and no longer what it was."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(target) if tensor.is_floating_point() or isinstance(target, torch.device) else tensor

        return attrs.evolve(self.giving(*tree_map_only(torch.Tensor, moved, self.given)), module=self.module.to(target))

    def differentiable(self) -> tuple[Case, list[torch.Tensor]]:
        """The case with copies of its tensors of numbers that gradients are wanted for, and these copies."""
        wanted: list[torch.Tensor] = []

        def leaf(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_floating_point():
                return tensor
            wanted.append(tensor.detach().clone().requires_grad_())
            return wanted[-1]

        return self.giving(*tree_map_only(torch.Tensor, leaf, self.given)), wanted

    def around(self, module: nn.Module | None = None) -> Alone:
        """A network that holds nothing but the layer, or another module in its place, and takes the arguments of :attr:`given`."""
        return Alone(self.module if module is None else module, self)

    def outputs(self, module: nn.Module | None = None) -> tuple[Any, ...]:
        """What each call gives in one pass through :meth:`around`."""
        network = self.around(module)
        if isinstance(network.layer, RelaxedLayer):
            network.layer.begin_pass()
        result: tuple[Any, ...] = network(*self.given)
        return result

    def numbers(self, module: nn.Module | None = None) -> list[torch.Tensor]:
        """The floating-point tensors among :meth:`outputs`."""
        return numbers_of(self.outputs(module))


class Alone(nn.Module):
    """A network of one layer, called as its case says; it gives a tuple of what the calls give."""

    def __init__(self, layer: nn.Module, case: Case) -> None:
        super().__init__()
        self.layer = layer
        self.positional, self.names, self.calls = len(case.args), tuple(case.kwargs), case.calls

    def forward(self, *given: Any) -> tuple[Any, ...]:
        """All arguments, those that have names last."""
        named = dict(zip(self.names, given[self.positional :], strict=True))
        return tuple(self.layer(*given[: self.positional], **named) for _ in range(self.calls))


class Surrounded(nn.Module):
    """A network of two copies of a layer that differ, each followed by batch norm, an activation that works in place, and a head.

    Every output of a layer is seen as rows of its last dimension, whatever its other dimensions are. What it gives has three columns.
    """

    def __init__(self, case: Case, seed: int = 0) -> None:
        super().__init__()
        second = case.fresh().module
        disturb(second, seed)
        self.features = nn.ModuleDict({"first": case.around(case.fresh().module), "second": case.around(second)})
        rows = [(output.numel(), _width(output)) for output in case.numbers()] * 2
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if numbers > width else nn.Identity() for numbers, width in rows).double()
        self.heads = nn.ModuleList(nn.Linear(width, 3) for _, width in rows).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (*self.norms.parameters(), *self.heads.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))

    def forward(self, *given: Any) -> torch.Tensor:
        """All arguments, those that have names last -> [rows, 3]."""
        outputs = [output.reshape(-1, _width(output)) for layer in self.features.values() for output in numbers_of(layer(*given))]
        normed = [norm(rows) for norm, rows in zip(self.norms, outputs, strict=True)]
        return torch.cat([head(nn.functional.silu(rows, inplace=True)) for head, rows in zip(self.heads, normed, strict=True)])


def _width(output: torch.Tensor) -> int:
    return output.shape[-1] if output.ndim else 1


def called(network: nn.Module, example_input: Any) -> Any:
    """What a network gives for a tensor, a tuple of arguments or a dictionary of them; a copy, so that none of it is changed."""
    given = copy.deepcopy(example_input)
    if isinstance(given, Mapping):
        return network(**given)
    return network(*given) if isinstance(given, tuple) else network(given)


def numbers_of(outputs: Any) -> list[torch.Tensor]:
    """The floating-point tensors of an output."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def apart(actual: Any, expected: Any) -> float:
    """The largest relative deviation between two outputs, whatever they are made of; infinite where they are made differently."""
    (found, structure), (wanted, other) = tree_flatten(actual), tree_flatten(expected)
    if structure != other or [isinstance(leaf, torch.Tensor) for leaf in found] != [isinstance(leaf, torch.Tensor) for leaf in wanted]:
        return float("inf")
    pairs = zip(found, wanted, strict=True)
    return max((relative(*pair) if isinstance(pair[0], torch.Tensor) else float(pair[0] != pair[1]) for pair in pairs), default=0.0)


def in_words(outputs: Any) -> str:
    """What an output is made of."""
    return ", ".join(_in_words(leaf) for leaf in tree_leaves(outputs)) or "nothing"


def _in_words(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return f"{list(value.shape)}" if value.is_floating_point() else f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


@torch.no_grad()
def moved_off_constants(module: nn.Module) -> None:
    """Move parameters that are all zeros or ones, as default initialisation leaves biases and scales: who ignores them would not show."""
    generator = torch.Generator().manual_seed(4)
    for parameter in module.parameters():
        if parameter.is_floating_point() and bool((parameter == 0).all() or (parameter == 1).all()):
            parameter.add_(torch.rand(parameter.shape, dtype=torch.float64, generator=generator).add_(0.5).to(parameter), alpha=0.2)


@torch.no_grad()
def disturb(module: nn.Module, seed: int = 3) -> None:
    """Move every parameter somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator), alpha=0.1)
