"""Checks that a relaxed layer is a module as PyTorch's own are, for code that was written for its parent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import func, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from anarch_core.errors import first_line
from anarch_core.layers.base import RelaxedLayer
from anarch_core.testing.cases import Case, apart, in_words, numbers_of
from anarch_core.testing.snapshot import relative
from anarch_core.testing.subject import RelaxationSubject

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
REFUSALS = (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError)
"""What PyTorch, and layers, raise for what they cannot do."""

Parameters = Mapping[str, torch.Tensor]


class ToolChecks(RelaxationSubject):
    """Batches of any size and layout, and the transformations of ``torch.func``: each where the parent takes them."""

    def test_empty_batches(self) -> None:
        """A batch of no samples goes through where the parent accepts it, forwards and backwards."""
        case, layer = self.lifted()
        none, _ = case.giving(*_rows(case, slice(0, 0))).differentiable()

        def run(module: nn.Module) -> tuple[Any, ...]:
            outputs = none.outputs(module)
            torch.cat([output.flatten() for output in numbers_of(outputs)]).sum().backward()  # type: ignore[no-untyped-call]
            return outputs

        try:
            expected = run(case.module)
        except REFUSALS:
            return
        try:
            found = run(layer)
        except REFUSALS as reason:
            msg = f"the layer refuses a batch of no samples, which its parent takes: {first_line(reason)}"
            raise AssertionError(msg) from reason
        assert apart(found, expected) == 0, f"for no samples the layer gives {in_words(found)}, its parent {in_words(expected)}"

    def test_channels_last(self) -> None:
        """Neither the memory format of the inputs nor that of the layer changes what it computes."""
        case, layer = self.lifted()
        expected = case.outputs(layer)

        def laid_out(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(memory_format=FORMATS[tensor.ndim]) if tensor.ndim in FORMATS else tensor

        same = case.giving(*tree_map_only(torch.Tensor, laid_out, case.given))
        error = apart(same.outputs(layer), expected)
        assert error <= self.allowed, f"for an input with the channels last in memory the layer gives something else, by {error:.1e}"
        memory_format = FORMATS.get(getattr(case.x, "ndim", 4), torch.channels_last)
        try:
            layer.to(memory_format=memory_format)
        except RuntimeError as reason:
            msg = f"to(memory_format={memory_format}) of the layer fails: {first_line(reason)}; RelaxedLayer handles it by its _apply"
            raise AssertionError(msg) from reason
        error = apart(same.outputs(layer), expected)
        assert error <= self.allowed, f"after to(memory_format=...) the layer computes something else, by {error:.1e}"

    def test_gradients_by_sample(self) -> None:
        """Mapped over samples by torch.func, gradients are those of a loop over the samples, where the parent can be mapped."""
        case, layer = self.lifted()
        count = _samples(case)
        if count is None:
            return
        layer.eval()  # a layer may keep statistics while it is trained, as batch norm does

        def mapped(module: nn.Module) -> dict[str, torch.Tensor]:
            dims = tuple(0 if isinstance(value, torch.Tensor) else None for value in case.given)
            result: dict[str, torch.Tensor] = func.vmap(func.grad(_loss(case, module)), in_dims=(None, *dims))(_values(module), *case.given)
            return result

        try:
            mapped(case.module)
        except REFUSALS:
            return
        try:
            found = mapped(layer)
        except REFUSALS as reason:
            msg = f"torch.func.vmap cannot map the layer: {first_line(reason)}; give autograd functions of your own a vmap rule"
            raise AssertionError(msg) from reason
        gradient = func.grad(_loss(case, layer))
        looped = [gradient(_values(layer), *_rows(case, sample)) for sample in range(count)]
        expected = {name: torch.stack([sample[name] for sample in looped]) for name in found}
        sizes = {name: float(tensor.abs().max()) for name, tensor in expected.items() if tensor.numel()}
        for name, size in sizes.items():
            # A gradient may be zero but for rounding, as that by the bias of keys is: as a share of the largest one.
            error = relative(found[name], expected[name]) * size / max(*sizes.values(), 1e-300)
            assert error <= 100 * self.allowed, f"mapped over samples the gradient of {name} differs from a loop's by {error:.1e}"

    def test_derivatives_forwards(self) -> None:
        """Forward-mode derivatives are those of the backward pass, in the parameters and the inputs, where the parent has them."""
        case, layer = self.lifted()
        layer.eval()
        generator = torch.Generator("cpu").manual_seed(4)

        def like(tensor: torch.Tensor) -> torch.Tensor:
            return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)

        places = [place for place, value in enumerate(case.given) if isinstance(value, torch.Tensor) and value.is_floating_point()]

        def of(module: nn.Module) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            def outputs(parameters: Parameters, *inputs: torch.Tensor) -> list[torch.Tensor]:
                given = list(case.given)
                for place, value in zip(places, inputs, strict=True):
                    given[place] = value
                return numbers_of(_functional(case, module, parameters, *given))

            return outputs, (_values(module), *(case.given[place] for place in places))

        def forwards(module: nn.Module) -> Any:
            outputs, at = of(module)
            along = tree_map_only(torch.Tensor, like, at)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, about itself
                return (*func.jvp(outputs, at, along), along)

        try:
            forwards(case.module)
        except REFUSALS:
            return
        try:
            values, tangents, along = forwards(layer)
        except REFUSALS as reason:
            msg = f"the layer has no forward-mode derivatives: {first_line(reason)}; give autograd functions of your own a jvp rule"
            raise AssertionError(msg) from reason
        outputs, at = of(layer)
        weights = [like(value) for value in values]
        back = func.vjp(outputs, *at)[1](weights)
        error = relative(_inner(tangents, weights), _inner(back, along))
        assert error <= 100 * self.allowed, f"the forward-mode derivative differs from that of the backward pass by {error:.1e}"


def _rows(case: Case, rows: int | slice) -> list[Any]:
    """The arguments of some samples, or of one, without the dimension of the batch."""
    return [value[rows] if isinstance(value, torch.Tensor) and value.ndim else value for value in case.given]


def _samples(case: Case) -> int | None:
    """Over how many samples the parent can be mapped: the first dimension of all its tensors and outputs; None where it is another."""
    sizes = {value.shape[0] if value.ndim else None for value in case.given if isinstance(value, torch.Tensor)}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    if size is None:
        return None
    try:
        every = numbers_of(case.outputs())
        first = numbers_of(case.giving(*_rows(case, slice(0, 1))).outputs())
    except REFUSALS:
        return None
    mapped = all(output.ndim and len(output) == size and relative(one, output[:1]) < 1e-9 for one, output in zip(first, every, strict=True))
    return size if mapped else None


def _values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _functional(case: Case, module: nn.Module, parameters: Parameters, *given: Any) -> Any:
    if isinstance(module, RelaxedLayer):
        module.begin_pass()
    return func.functional_call(case.around(module), {f"layer.{name}": value for name, value in parameters.items()}, given)


def _loss(case: Case, module: nn.Module) -> Callable[..., torch.Tensor]:
    """Of one sample, without the dimension of the batch."""

    def loss(parameters: Parameters, *sample: Any) -> torch.Tensor:
        given = [value.unsqueeze(0) if isinstance(value, torch.Tensor) else value for value in sample]
        outputs = numbers_of(_functional(case, module, parameters, *given))
        return torch.stack([output.square().sum() for output in outputs]).sum()

    return loss


def _inner(one: Any, other: Any) -> torch.Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True)]).sum()
