"""Bring two networks to one architecture, so that there is a space between them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.layers.base import relaxed_layers
from anarch_core.relaxation.verbs import applied_relaxations, reapply, relax


def common_architecture(a: nn.Module, b: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    """Lift whichever network is the more constrained one, or both to efcn where neither holds the other.

    Args:
        a: one network; never changed.
        b: the other; never changed.
        example_input: with a batch dimension.

    Returns:
        copies of both, with the same parameters by name and shape.

    Raises:
        ProbeError: they are different networks, whatever is lifted.
    """
    if _layout(a) == _layout(b):
        return copy.deepcopy(a), copy.deepcopy(b)
    for first, second in ((a, b), (b, a)):
        try:
            lifted = reapply(first, applied_relaxations(second))
        except SurgeryError:
            continue
        if _layout(lifted) == _layout(second):
            other = copy.deepcopy(second)
            return (lifted, other) if first is a else (other, lifted)
    both = tuple(_fully_connected(network, example_input) for network in (a, b))
    if _layout(both[0]) == _layout(both[1]):
        return both[0], both[1]
    differing = sorted(_layout(a).keys() ^ _layout(b).keys()) or sorted(
        name for name, shape in _layout(both[0]).items() if _layout(both[1])[name] != shape
    )
    msg = f"the networks are not of one architecture and cannot be lifted to a common one; they differ in {', '.join(differing[:5])}"
    raise ProbeError(msg)


def _layout(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _fully_connected(model: nn.Module, example_input: torch.Tensor) -> nn.Module:
    relaxed = list(relaxed_layers(model))
    return relax(model, "efcn", example_input=example_input, layers=relaxed).model if relaxed else copy.deepcopy(model)
