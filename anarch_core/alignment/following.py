"""Following the channels of a network through one pass of an example input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from anarch_core.alignment.channels import FIXED, Channels
from anarch_core.alignment.slots import Slot, View, as_it_is
from anarch_core.errors import ProbeError
from anarch_core.layers.base import RelaxedLayer, whole_modules
from anarch_core.layers.constrained import ConstrainedLayer


@attrs.define(kw_only=True, eq=False)
class Followed:
    """What is known of the channels, as a pass goes on.

    Attributes:
        channels: all that were met.
        slots: where they lie in parameters and buffers, by key.
        pinned: module -> what is not understood of it, so that channels stay where they are.
        opaque: names of tensors that are used in a way that is not understood.
    """

    names: Mapping[int, str]
    channels: Channels = attrs.field(factory=Channels)
    slots: dict[tuple[object, ...], Slot] = attrs.field(factory=dict)
    pinned: dict[str, str] = attrs.field(factory=dict)
    opaque: set[str] = attrs.field(factory=set)
    path: list[str] = attrs.field(factory=list)
    _labels: dict[int, tuple[torch.Tensor, torch.Tensor]] = attrs.field(factory=dict)
    _products: dict[int, tuple[torch.Tensor, tuple[str, ...]]] = attrs.field(factory=dict)
    _constants: dict[int, torch.Tensor] = attrs.field(factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> Followed:
        """Nothing is known yet."""
        named = [*model.named_parameters(), *model.named_buffers()]
        followed = cls(names={id(tensor): name for name, tensor in named})
        for module in model.modules():
            held = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
            followed._constants.update((id(tensor), tensor) for tensor in held if id(tensor) not in followed.names)
        return followed

    def names_of(self, tensor: torch.Tensor) -> tuple[str, ...]:
        """The parameter or buffer that a tensor is, or those that it is the product of; none for any other."""
        name = self.names.get(id(tensor))
        return (name,) if name is not None else self._products.get(id(tensor), (tensor, ()))[1]

    def is_product(self, tensor: torch.Tensor, names: Sequence[str]) -> None:
        """Remember a weight that is computed of parameters and buffers, number by number."""
        self._products[id(tensor)] = tensor, tuple(dict.fromkeys(names))

    def labels(self, tensor: torch.Tensor) -> torch.Tensor:
        """The channels of the numbers of a tensor, shaped as it.

        Raises:
            ProbeError: nobody knows where it comes from.
        """
        if id(tensor) in self._labels:
            return self._labels[id(tensor)][1]
        if id(tensor) in self._constants or self.names_of(tensor):
            return torch.full(tensor.shape, FIXED)
        where = self.path[-1] if self.path else ""
        msg = (
            f"the channels of {where or 'the network'} cannot be followed: it computes by something other than functions of torch (numpy, "
            "or a compiled or scripted module); align networks without it"
        )
        raise ProbeError(msg)

    def put(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        """Say what the channels of a tensor's numbers are. It is kept, so that no other has its identity."""
        self._labels[id(tensor)] = tensor, labels

    def slot(
        self, tensor: torch.Tensor | None, axis: int, channels: torch.Tensor, *, view: View = as_it_is, key: tuple[object, ...] = ()
    ) -> None:
        """Channels lie along an axis of a parameter or buffer; where some did before (a module that is called twice), they are one."""
        if tensor is None:
            return
        names = self.names_of(tensor)
        if not names:
            self.channels.pin(channels)
            return
        self._add(Slot(names=names, key=(*names, *key, axis), view=view, axis=axis, channels=channels))

    def fence(self, key: tuple[object, ...], channels: torch.Tensor) -> None:
        """Channels that change places with one another only, [size], though nothing of them lies in a parameter."""
        self._add(Slot(names=(), key=key, view=as_it_is, axis=0, channels=channels))

    def _add(self, slot: Slot) -> None:
        before = self.slots.setdefault(slot.key, slot)
        if before is not slot:
            self.channels.tie(before.channels, slot.channels)

    def give_up(self, inputs: Any, outputs: Any, why: str) -> None:
        """Something is not understood: the channels that it is given stay where they are, and so do those that it makes."""
        found = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
        names = {name for tensor in found for name in self.names_of(tensor)}
        pinned = [self.channels.pin(self.labels(tensor)) for tensor in found if not self.names_of(tensor)]
        if any(pinned) or names - self.opaque:
            self.pinned.setdefault(self.path[-1] if self.path else "", why)
        self.opaque |= names
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, torch.Tensor):
                self.put(leaf, torch.full(leaf.shape, FIXED))

    def close(self, outputs: Any) -> None:
        """The pass is over: outputs stay where they are, and so do the channels of tensors that are used in other ways, too."""
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, torch.Tensor):
                self.channels.pin(self.labels(leaf))
        for slot in self.slots.values():
            if self.opaque.intersection(slot.names):
                self.channels.pin(slot.channels)


Understand = Callable[[Followed, Any, tuple[Any, ...], dict[str, Any], Any], None]
"""Called after a function of torch with what was followed so far, the function, its arguments and its result."""

UnderstandLayer = Callable[[Followed, str, RelaxedLayer, Any, Any], None]
"""Called after a relaxed layer with what was followed so far, its path, the layer, its input and its output."""


class Following(TorchFunctionMode):
    """Has every function of torch looked at that a network calls outside of its relaxed layers."""

    def __init__(self, followed: Followed, understand: Understand) -> None:
        super().__init__()
        self.followed = followed
        self.understand = understand
        self.away = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """The function, and what it means for the channels."""
        given = kwargs or {}
        result = func(*args, **given)
        if not self.away:
            self.understand(self.followed, func, args, given, result)
        return result


@contextlib.contextmanager
def watched(model: nn.Module, mode: Following, understand: UnderstandLayer) -> Iterator[None]:
    """Inside, relaxed layers are understood as wholes, and the mode knows which module is being computed."""
    with contextlib.ExitStack() as stack:
        for path, module in whole_modules(model):
            layer = module if isinstance(module, RelaxedLayer) else None
            whole = layer is not None and not isinstance(layer, ConstrainedLayer)

            def begin(module: nn.Module, args: Any, path: str = path, whole: bool = whole) -> None:
                mode.followed.path.append(path)
                mode.away += whole

            def end(
                module: nn.Module, args: Any, output: Any, path: str = path, whole: bool = whole, layer: RelaxedLayer | None = layer
            ) -> None:
                mode.away += not whole
                if layer is not None:
                    understand(mode.followed, path, layer, args, output)
                for tensor in tree_leaves(output):
                    if isinstance(tensor, torch.Tensor):
                        mode.followed.labels(tensor)  # here it is known which module gave it
                mode.away -= 1
                mode.followed.path.pop()

            stack.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
            stack.callback(module.register_forward_hook(end).remove)
        yield
