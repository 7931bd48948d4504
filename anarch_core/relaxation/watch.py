"""Noticing who else has, or reads, the tensors of a layer."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CONVOLUTIONS = ("aten.convolution", "aten._convolution")
NO_BACKWARD = -1


class UseOfTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where an operation reads certain tensors, or views of them, outside of the layers that own them and of their derivatives.

    Attributes:
        within: paths of the layers that are being called.
        used: path -> the first operation that read a tensor of a layer while that layer was not being called.
        loose: convolutions that were computed while none of the layers was being called.
        quiet: nothing is noted while it is above zero.
    """

    def __init__(self, owned: Iterable[tuple[torch.Tensor, str]]) -> None:
        """Watch ``owned``: tensors with the path of their layer; of several layers, where one is inside another."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.within: list[str] = []
        self.used: dict[str, str] = {}
        self.loose = self.quiet = 0
        self._tensors: dict[int, torch.Tensor] = {}  # kept, so that no other takes the place of one
        self._by_identity: dict[int, list[str]] = {}
        for tensor, path in owned:
            self._tensors[id(tensor)] = tensor
            self._by_identity.setdefault(id(tensor), []).append(path)
        spans = ((_span(tensor), self._by_identity[key]) for key, tensor in self._tensors.items())
        self._by_place = sorted((*span, paths) for span, paths in spans if span is not None)

    def _owners(self, tensor: torch.Tensor) -> Sequence[str]:
        if id(tensor) in self._by_identity:
            return self._by_identity[id(tensor)]
        span = _span(tensor)
        if span is None:
            return ()
        first = bisect.bisect(self._by_place, span[0], key=lambda place: place[1])  # the first that ends behind where the tensor starts
        return self._by_place[first][2] if first < len(self._by_place) and self._by_place[first][0] < span[1] else ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.quiet and torch._C._current_graph_task_id() == NO_BACKWARD:
            self._note(str(func.overloadpacket), tree_leaves((args, kwargs)))
        return func(*args, **kwargs)

    def _note(self, operation: str, arguments: Iterable[Any]) -> None:
        for argument in arguments:
            for path in self._owners(argument) if isinstance(argument, torch.Tensor) else ():
                if path not in self.within:
                    self.used.setdefault(path, operation)
        self.loose += operation in CONVOLUTIONS and not self.within


def shared_parameters(model: nn.Module) -> list[tuple[str, str]]:
    """Pairs of modules (paths) that share a parameter, or memory of different ones; each module under its first path.

    A module that is registered under several paths is a pair with itself, under the first and each other one.
    """
    pairs = []
    names: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if names.setdefault(id(module), path) != path and next(module.parameters(recurse=False), None) is not None:
            pairs.append((names[id(module)], path))
    first: dict[int, str] = {}
    spans = []
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if first.setdefault(id(parameter), path) != path:
                pairs.append((first[id(parameter)], path))
            elif (span := _span(parameter)) is not None:
                spans.append((*span, path))
    farthest, owner = 0, ""
    for start, end, path in sorted(spans):
        if start < farthest and path != owner:
            pairs.append((owner, path))
        if end > farthest:
            farthest, owner = end, path
    return pairs


def _span(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Where the numbers of a tensor lie in memory; None where it has none."""
    if tensor.layout != torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    try:
        start = tensor.data_ptr()
    except RuntimeError:  # a stand-in without memory
        return None
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (start, start + extent * tensor.element_size()) if start else None
