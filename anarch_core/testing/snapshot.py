"""What a network and the random generators looked like, to tell afterwards what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@attrs.frozen(eq=False)
class Snapshot:
    """Copies of all that a caller can see of a network.

    Attributes:
        tensors: parameters, buffers and gradients (None where there is none) by what they are, e.g. ``"gradient of conv.weight"``.
        flags: training mode and number of hooks of every module, ``requires_grad`` of every parameter.
    """

    tensors: Mapping[str, torch.Tensor | None]
    flags: Mapping[str, Any]

    @classmethod
    def of(cls, network: nn.Module) -> Snapshot:
        """Copy what there is."""
        tensors: dict[str, torch.Tensor | None] = {}
        flags: dict[str, Any] = {}
        for name, parameter in network.named_parameters():
            tensors[f"parameter {name}"] = parameter.detach().clone()
            tensors[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.detach().clone()
            flags[f"requires_grad of {name}"] = parameter.requires_grad
        for name, buffer in network.named_buffers():
            tensors[f"buffer {name}"] = buffer.detach().clone()
        for name, module in network.named_modules():
            flags[f"training mode of {name or 'the network'}"] = module.training
            flags[f"hooks of {name or 'the network'}"] = sum(len(getattr(module, hooks)) for hooks in _HOOKS)
        return cls(tensors, flags)

    def changes(self, network: nn.Module) -> list[str]:
        """What is not as it was, bit by bit."""
        now = Snapshot.of(network)
        changed = [name for name in {**self.flags, **now.flags} if self.flags.get(name) != now.flags.get(name)]
        for name in {**self.tensors, **now.tensors}:
            before, after = self.tensors.get(name), now.tensors.get(name)
            if before is None or after is None:
                if before is not after:
                    changed.append(name)
            elif before.dtype != after.dtype or before.shape != after.shape or not same_bits(before, after):
                changed.append(name)
        return changed


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype are equal, with nan equal to nan."""
    return bool(torch.equal(a, b) or (torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) and torch.equal(a.isnan(), b.isnan())))


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation over the largest expected value; infinite where the shapes differ or a number is not finite."""
    if actual.shape != expected.shape or not bool(actual.isfinite().all()):
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def in_memory_of(module: nn.Module, other: nn.Module) -> list[str]:
    """Names of the parameters and buffers of a module that lie in memory of another."""
    others = {tensor.untyped_storage().data_ptr() for tensor in (*other.parameters(), *other.buffers())}
    own = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in own if tensor.numel() and tensor.untyped_storage().data_ptr() in others]
