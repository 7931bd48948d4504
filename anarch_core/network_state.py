"""What a network is made of at one moment: told afterwards what is not as it was, and put back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import attrs
import torch
from torch import nn

PARTS = {"_parameters": "parameters", "_buffers": "buffers", "_modules": "modules", "training": "mode"}
"""What attributes of modules are called in a sentence, where that is not their name."""


@attrs.frozen(eq=False)
class NetworkState:
    """All of a network but the numbers of its parameters, which are not copied (:func:`digests` tells whether they changed).

    Attributes:
        modules: what each module holds.
        parameters: what else belongs to each parameter.
        buffers: by name, each with a copy.
    """

    modules: tuple[_Module, ...]
    parameters: tuple[_Parameter, ...]
    buffers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def of(cls, model: nn.Module) -> NetworkState:
        """Look at a network, in whatever mode it is."""
        return cls(
            tuple(_Module.of(path, module) for path, module in model.named_modules()),
            tuple(_Parameter.of(path, parameter) for path, parameter in model.named_parameters()),
            {path: (buffer, buffer.detach().clone()) for path, buffer in model.named_buffers()},
        )

    def restore(self) -> list[str]:
        """Put back what is not as it was; its names, in words."""
        restored = [name for module in self.modules for name in module.restore()]
        restored += [name for parameter in self.parameters for name in parameter.restore()]
        with torch.no_grad():
            for path, (buffer, value) in self.buffers.items():
                # Writing what is there already would invalidate graphs that are kept.
                if not buffer.is_meta and not _same(buffer, value):
                    buffer.copy_(value)
                    restored.append(f"buffer {path}")
        return restored


@attrs.frozen(eq=False)
class _Module:
    """The attributes of a module, and what is inside of those that are dictionaries or lists: registered tensors, modules, hooks."""

    path: str
    module: nn.Module
    values: Mapping[str, Any]
    inside: Mapping[str, Any]

    @classmethod
    def of(cls, path: str, module: nn.Module) -> _Module:
        held = vars(module)
        inside = {key: value.copy() for key, value in held.items() if isinstance(value, dict | list | set)}
        return cls(path, module, dict(held), inside)

    def restore(self) -> Iterator[str]:
        held = vars(self.module)
        where = f"of {self.path}" if self.path else "of the network"
        for key in {**held, **self.values}:
            if key not in held or key not in self.values or held[key] is not self.values[key]:
                yield f"{PARTS.get(key, key.strip('_').replace('_', ' '))} {where}"
        _refill(held, self.values)
        for key, before in self.inside.items():
            now = self.values[key]
            if isinstance(now, dict) and not _alike(now, before):
                _refill(now, before)
            elif isinstance(now, list) and [id(item) for item in now] != [id(item) for item in before]:
                now[:] = before
            elif isinstance(now, set) and now != before:
                now.clear()
                now.update(before)
            else:
                continue
            yield f"{PARTS.get(key, key.strip('_').replace('_', ' '))} {where}"


def _alike(held: Mapping[Any, Any], values: Mapping[Any, Any]) -> bool:
    return [(key, id(value)) for key, value in held.items()] == [(key, id(value)) for key, value in values.items()]


def _refill(held: MutableMapping[Any, Any], values: Mapping[Any, Any]) -> None:
    """Make a dictionary hold these very objects, in this order."""
    if not _alike(held, values):
        held.clear()
        held.update(values)


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@attrs.frozen(eq=False)
class _Parameter:
    """What belongs to a parameter beside its numbers."""

    path: str
    parameter: nn.Parameter
    requires_grad: bool
    gradient: torch.Tensor | None
    hooks: Mapping[str, Mapping[Any, Any] | None]

    @classmethod
    def of(cls, path: str, parameter: nn.Parameter) -> _Parameter:
        hooks = {key: None if (held := getattr(parameter, key)) is None else dict(held) for key in _HOOKS}
        return cls(path, parameter, parameter.requires_grad, parameter.grad, hooks)

    def restore(self) -> Iterator[str]:
        parameter = self.parameter
        if parameter.requires_grad != self.requires_grad:
            parameter.requires_grad_(self.requires_grad)
            yield f"requires_grad of {self.path}"
        if parameter.grad is not self.gradient:
            parameter.grad = self.gradient
            yield f"gradient of {self.path}"
        for key, before in self.hooks.items():
            held = getattr(parameter, key)
            if _alike(held or {}, before or {}):
                continue
            if held is None:
                setattr(parameter, key, before)
            else:  # never None again: the hooks after gradients would go on
                _refill(held, before or {})
            yield f"hooks of {self.path}"


@attrs.frozen(eq=False)
class Numbers:
    """Tensors with what their memory holds, in a few bytes.

    Attributes:
        tensors: by name.
        aliases: the same memory, held in case a tensor is given another.
        flags: whether each requires gradients.
        digests: of each; see :func:`digest`.
    """

    tensors: Mapping[str, torch.Tensor]
    aliases: Mapping[str, torch.Tensor]
    flags: Mapping[str, bool]
    digests: Mapping[str, int]

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Numbers:
        """Read the tensors once; nothing is copied."""
        aliases = {name: tensor.data for name, tensor in tensors.items()}
        flags = {name: tensor.requires_grad for name, tensor in tensors.items()}
        return cls(tensors, aliases, flags, {name: digest(tensor) for name, tensor in tensors.items()})

    def restore(self) -> list[str]:
        """Give tensors their memory back where they were given another; the names of those."""
        restored = []
        for name, tensor in self.tensors.items():
            alias, flag = self.aliases[name], self.flags[name]
            if _place(tensor) != _place(alias):
                tensor.data = alias
                restored.append(name)
            if tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
                restored.append(f"requires_grad of {name}")
        return restored

    def changed(self) -> list[str]:
        """Names of tensors whose memory holds something else than it did."""
        return [name for name, tensor in self.tensors.items() if digest(tensor) != self.digests[name]]


_SMALL = 1 << 20


def digest(tensor: torch.Tensor) -> int:
    """A checksum of the bytes of a tensor that depends on their order; a gigabyte takes a quarter of a second on the CPU.

    What has no bytes here (on ``meta``, sparse, quantised) is 0.
    """
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or not tensor.numel():
        return 0
    if tensor.is_contiguous():
        held = tensor.reshape(-1).view(torch.uint8)
    else:
        held = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    rows = len(held) // 8192
    if tensor.device.type == "cpu" or len(held) < _SMALL or held.data_ptr() % 8:
        return _crc(held)
    table = held[: rows * 8192].view(torch.int64).view(rows, 1024)
    across, down = torch.arange(1, 2049, 2, device=held.device), torch.arange(1, 2 * rows + 1, 2, device=held.device)
    sums = (table.sum(0) * across).sum(), (table.sum(1) * down).sum()
    return hash((int(sums[0]), int(sums[1]), _crc(held[rows * 8192 :])))


def _crc(held: torch.Tensor) -> int:
    return zlib.crc32(held.cpu().numpy().data)


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.stride(), tensor.shape


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
