"""Tensors that hold no numbers: a shape, a layout, a dtype, the device they would be on, and a storage with a size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from anarch_core.network import copied
from anarch_core.ops import makers
from anarch_core.ops.ordinary import plain

aten = torch.ops.aten

MAKERS = makers.MAKERS | {aten.rand.generator, aten.randn.generator}
"""Operators that take no tensor and make one in which there is nothing to be known."""


@plain
class Hollow(torch.Tensor):
    """A tensor on PyTorch's meta device that says it is on another, so that code takes the ways it would take there.

    PyTorch's own FakeTensor is more careful about devices and numbers, and ten times slower, which tells in layers of thousands of calls.

    Attributes:
        meta: the tensor on the meta device; views share its storage.
    """

    meta: torch.Tensor

    @staticmethod
    def __new__(cls, meta: torch.Tensor, device: torch.device) -> Hollow:
        """A hollow tensor that says it is on ``device``."""
        hollow: Hollow = torch.Tensor._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), storage_offset=meta.storage_offset(), dtype=meta.dtype, device=device
        )
        hollow.meta = meta
        return hollow

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Hollow(shape={list(self.shape)}, dtype={self.dtype}, device={self.device})"

    def tolist(self) -> Any:
        """Ones, nested as the shape says."""
        ones: Any = 1
        for size in reversed(self.shape):
            ones = [ones] * size
        return ones

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return call(func, args, kwargs or {})


def hollowed(model: nn.Module) -> nn.Module:
    """A copy of a network whose parameters are hollow. Buffers keep their numbers: masks and indices say what a layer is."""
    return emptied(copied(model))


def emptied(model: nn.Module) -> nn.Module:
    """The network with hollow parameters in place of those that hold numbers; changes ``model`` and returns it."""
    done: dict[torch.Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and not isinstance(parameter, Hollow):
                if parameter not in done:
                    done[parameter] = nn.Parameter(Hollow(parameter.detach().to("meta"), parameter.device), parameter.requires_grad)
                module._parameters[name] = done[parameter]
    return model


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do to hollow tensors what an operator does to tensors; a number that is asked for is 1, and a comparison of whole tensors true.

    Raises:
        RuntimeError: the result depends on numbers.
    """
    if func._schema.name.endswith("_") and not func._schema.name.endswith("__"):  # changes its first argument, in which there is nothing
        return args[0] if func._schema.returns else None
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    device = kwargs.get("device") or next(leaf.device for leaf in leaves if isinstance(leaf, Hollow))
    if func is aten._local_scalar_dense.default:
        return 1  # a number like any other
    if func in (aten.equal.default, aten.allclose.default):
        return True
    if func is aten.nonzero.default:
        return Hollow(torch.empty(leaves[0].numel(), leaves[0].ndim, dtype=torch.int64, device="meta"), torch.device(device))
    if func is aten.index.Tensor:
        args = (args[0], [place for index in args[1] for place in _places(index)])
    given = {id(leaf.meta): leaf for leaf in leaves if isinstance(leaf, Hollow)}  # an operator may return what it was given
    inner, options = tree_map(_meta, (args, kwargs))
    result = func(*inner, **_on_meta(options))

    def wrap(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return given[id(leaf)] if id(leaf) in given else Hollow(leaf, torch.device(device))

    return tree_map(wrap, result)


def _places(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """An index without a mask: every place of a mask counts as chosen, which is the most there can be."""
    if index is None or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return [torch.empty(index.numel(), dtype=torch.int64, device="meta")] * index.ndim


def made(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hollow:
    """What one of the :data:`MAKERS` makes, hollow."""
    return Hollow(func(*args, **{**_on_meta(kwargs), "device": "meta"}), torch.device(kwargs.get("device") or "cpu"))


def _meta(leaf: Any) -> Any:
    if isinstance(leaf, Hollow):
        return leaf.meta
    return leaf.detach().to("meta") if isinstance(leaf, torch.Tensor) else leaf


def _on_meta(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments for the meta device."""
    kwargs = {name: None if name in ("generator", "pin_memory") else value for name, value in kwargs.items()}
    if kwargs.get("device") is not None:
        kwargs["device"] = "meta"
    return kwargs
