"""Checks that a relaxed layer is a module as PyTorch's own are, for code that was written for convolutions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import func, nn

from anarch_core.errors import first_line
from anarch_core.testing.snapshot import relative
from anarch_core.testing.subject import RelaxationSubject

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
Parameters = Mapping[str, torch.Tensor]


class ToolChecks(RelaxationSubject):
    """Batches of any size and layout, and the transformations of ``torch.func``."""

    def test_empty_batches(self) -> None:
        """A batch of no samples goes through where the parent accepts it, forwards and backwards."""
        site, x, layer = self.lifted()
        none = x[:0].clone().requires_grad_()
        expected = site.module(none)
        try:
            output = layer(none)
            output.sum().backward()
        except (RuntimeError, ValueError, IndexError) as reason:
            msg = f"the layer refuses a batch of no samples, which its parent takes: {first_line(reason)}"
            raise AssertionError(msg) from reason
        assert output.shape == expected.shape, f"for no samples the layer gives {list(output.shape)}, its parent {list(expected.shape)}"

    def test_channels_last(self) -> None:
        """Neither the memory format of the input nor that of the layer changes what it computes."""
        _, x, layer = self.lifted()
        expected = layer(x)
        laid_out = x.to(memory_format=FORMATS[x.ndim]) if x.ndim in FORMATS else x
        error = relative(layer(laid_out), expected)
        assert error <= self.allowed, f"for an input with the channels last in memory the layer gives something else, by {error:.1e}"
        memory_format = FORMATS.get(x.ndim, torch.channels_last)
        try:
            layer.to(memory_format=memory_format)
        except RuntimeError as reason:
            msg = f"to(memory_format={memory_format}) of the layer fails: {first_line(reason)}; RelaxedLayer handles it by its _apply"
            raise AssertionError(msg) from reason
        error = relative(layer(laid_out), expected)
        assert error <= self.allowed, f"after to(memory_format=...) the layer computes something else, by {error:.1e}"

    def test_gradients_by_sample(self) -> None:
        """Mapped over samples by torch.func, gradients are those of a loop over the samples."""
        _, x, layer = self.lifted()
        layer.eval()  # a layer may keep statistics while it is trained, as batch norm does
        gradient = func.grad(_loss(layer))
        parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
        try:
            mapped = func.vmap(gradient, in_dims=(None, 0))(parameters, x)
        except (RuntimeError, NotImplementedError) as reason:
            msg = f"torch.func.vmap cannot map the layer: {first_line(reason)}; give autograd functions of your own a vmap rule"
            raise AssertionError(msg) from reason
        for name in parameters:
            looped = torch.stack([gradient(parameters, sample)[name] for sample in x])
            error = relative(mapped[name], looped)
            assert error <= 100 * self.allowed, f"mapped over samples the gradient of {name} differs from a loop's by {error:.1e}"

    def test_derivatives_forwards(self) -> None:
        """Forward-mode derivatives are those of the backward pass, in the parameters and the input."""
        _, x, layer = self.lifted()
        layer.eval()
        generator = torch.Generator("cpu").manual_seed(4)

        def like(tensor: torch.Tensor) -> torch.Tensor:
            return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)

        at = ({name: parameter.detach() for name, parameter in layer.named_parameters()}, x)
        along = ({name: like(parameter) for name, parameter in at[0].items()}, like(x))

        def output(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = func.functional_call(layer, dict(parameters), (x,))
            return y

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, about itself
                value, forwards, *_ = func.jvp(output, at, along)
        except (RuntimeError, NotImplementedError) as reason:
            msg = f"the layer has no forward-mode derivatives: {first_line(reason)}; give autograd functions of your own a jvp rule"
            raise AssertionError(msg) from reason
        weights = like(value)
        back, to_input = func.vjp(output, *at)[1](weights)
        expected = sum((back[name] * along[0][name]).sum() for name in back) + (to_input * along[1]).sum()
        error = relative((forwards * weights).sum(), expected)
        assert error <= 100 * self.allowed, f"the forward-mode derivative differs from that of the backward pass by {error:.1e}"


def _loss(layer: nn.Module) -> Callable[[Parameters, torch.Tensor], torch.Tensor]:
    def loss(parameters: Parameters, sample: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = func.functional_call(layer, dict(parameters), (sample.unsqueeze(0),))
        return output.square().sum()

    return loss
