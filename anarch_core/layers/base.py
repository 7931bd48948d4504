"""Relaxed layers: modules that stand where a constrained layer stood."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import attrs
import torch
from torch import nn
from torch.fx import Proxy

from anarch_core.constraint.parts import PARTS, Drift, Part
from anarch_core.ops.piece import Piece


@attrs.frozen(kw_only=True)
class Cost:
    """What a relaxed layer will take, known before anything is allocated.

    Attributes:
        parameters: numbers that can be trained.
        scratch_parameters: numbers held beside them (buffers, index maps).
        flops: floating-point operations of one forward pass of one sample (a multiply-add counts two).
        itemsize: bytes per number.
    """

    parameters: int
    scratch_parameters: int = 0
    flops: int
    itemsize: int = 4

    @property
    def bytes(self) -> int:
        """Bytes of parameters and buffers."""
        return (self.parameters + self.scratch_parameters) * self.itemsize


class RelaxedLayer(nn.Module, ABC):
    """A layer that a relaxation made. It takes its parent's inputs and gives its parent's outputs: same shapes, dtype and device.

    Attributes:
        relaxation: name of the relaxation that made it.
    """

    relaxation: str
    _takes_input: ClassVar[bool]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.forward).parameters.values()
        cls._takes_input = any(each.name == "input" or each.kind is each.VAR_KEYWORD for each in parameters)

    @abstractmethod
    def reset_parameters(self) -> None:
        """Default initialisation, from the global random state; the control ``scratch`` starts here."""

    @abstractmethod
    def project(self) -> nn.Module:
        """The constrained layer nearest to this one: a left inverse of the lift. Shares no memory with it."""

    @abstractmethod
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """How far this layer is from the constrained ones: from the nearest, where they are no linear space.

        Args:
            reference: the same layer at an earlier moment, for the motion of the shared part.

        Raises:
            SurgeryError: there is no such distance, or the reference is a layer of another kind.
        """

    @abstractmethod
    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthogonal parts of a tensor shaped as the parameter ``name``: (shared, unshared, off-local); they add up to it.

        Linear in the tensor. Where the constrained layers are no linear space, the shared part is along the tangent space at the nearest of
        them to the weights that this layer has.

        Raises:
            SurgeryError: such tensors have no parts.
        """

    def keep(self, tensor: torch.Tensor, parts: Collection[Part], name: str = "weight") -> torch.Tensor:
        """The sum of some of the parts that :meth:`split` gives; a new tensor. Overridden where it takes less than all of them.

        Args:
            tensor: shaped as the parameter.
            parts: which are kept, of ``"shared"``, ``"unshared"`` and ``"off-local"``.
            name: of the parameter.
        """
        return weighted_sum(self.split(tensor, name), dict.fromkeys(parts, 1.0))

    def weighted(self, tensors: Mapping[str, torch.Tensor], factors: Mapping[Part, float]) -> dict[str, torch.Tensor]:
        """The parts of several tensors, each times a number: parameters that have parts together only (copies of one) are given together.

        Args:
            tensors: shaped as the parameters that they are named after.
            factors: of the parts; a part without one is left out.

        Returns:
            new tensors by the same names.
        """
        if all(factor in (0, 1) for factor in factors.values()):
            kept = [part for part, factor in factors.items() if factor]
            return {name: self.keep(tensor, kept, name) for name, tensor in tensors.items()}
        return {name: weighted_sum(self.split(tensor, name), factors) for name, tensor in tensors.items()}

    def piece(self) -> Piece | None:
        """The layer as it is taken in a chain of layers that is trained without autograd; None where it is not, as by default. New in 1.3.

        It must be the layer as :meth:`forward` has it, to rounding, in training mode. A class that overrides :meth:`forward` is not asked
        for the piece of the one that it inherits from.
        """
        return None

    def begin_pass(self) -> None:
        """Called when a pass of the network begins, on layers that override it, as those do that count their calls."""

    def gram(self, tensor: torch.Tensor, name: str = "weight") -> torch.Tensor:
        """AᵀA times a tensor shaped as a parameter, where the parameter stands for the matrix Aθ from inputs to outputs.

        Norms are those of the matrix: ⟨θ, AᵀAθ⟩. A number that stands for n entries is multiplied by n, which are one where weights are not
        shared: the tensor itself. May be the tensor itself.
        """
        return tensor

    @property
    def tells_parts_apart(self) -> bool:
        """Whether the unshared and the off-local part that :meth:`split` gives are those that :meth:`drift` measures, each by itself.

        False where the layer can hold neither alone, as where padding lets shared weights meet in one pixel: then :meth:`split` calls both
        together off-local.
        """
        return True

    def drifting(self) -> tuple[str, ...]:
        """Names of the parameters whose norms :meth:`drift` adds up: all but biases."""
        return tuple(name for name, _ in self.named_parameters() if name.rpartition(".")[2] != "bias")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The layer applied; one node of the graph where ``torch.fx`` traces the network around it, as PyTorch's own layers are.

        The input may be called ``input``, as a convolution's is, whatever :meth:`forward` calls its first argument.
        """
        if "input" in kwargs and not args and not self._takes_input:
            args = (kwargs.pop("input"),)
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Proxy)), None)
        return super().__call__(*args, **kwargs) if x is None else self._node(x.tracer, args, kwargs)

    def _node(self, tracer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def node(*args: Any, **kwargs: Any) -> Proxy:
            proxy: Proxy = tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
            return proxy

        return tracer.call_module(self, node, args, kwargs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # ``to(memory_format=...)`` takes parameters of four or five dimensions for weights of convolutions. Here they are what the layer
        # makes of them, so conversions see a parameter as one line of numbers; what the layer holds is converted as usual.
        def line_by_line(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.ndim not in (4, 5):
                return fn(tensor)
            line = tensor.flatten()
            converted = fn(line)
            return tensor if converted is line and tensor.is_contiguous() else converted.view(tensor.shape)

        if recurse:
            for module in self.children():
                module._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(line_by_line, recurse=False)  # type: ignore[no-untyped-call]
        return self


def weighted_sum(parts: Sequence[torch.Tensor], factors: Mapping[Part, float]) -> torch.Tensor:
    """The sum of the parts that :meth:`RelaxedLayer.split` gives, each times its factor; a new tensor."""
    total = torch.zeros_like(parts[0])
    for part, values in zip(PARTS, parts, strict=True):
        if factors.get(part, 0.0) != 0:
            total.add_(values, alpha=factors[part])
    return total


def whole_modules(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules of a network as ``named_modules`` gives them, but with relaxed layers as wholes.

    A relaxed layer may be made of modules, convolutions or other relaxed layers among them; these are its own affair and are not listed.
    """
    whole: str | None = None
    for path, module in model.named_modules(remove_duplicate=remove_duplicate):
        if whole is not None and (path.startswith(f"{whole}.") or whole == ""):
            continue
        whole = path if isinstance(module, RelaxedLayer) else None
        yield path, module


def relaxed_layers(model: nn.Module) -> dict[str, RelaxedLayer]:
    """The relaxed layers of a network by path, each once."""
    return {path: module for path, module in whole_modules(model) if isinstance(module, RelaxedLayer)}
