"""Forward and backward of one locally connected layer."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from measure import OURS, PRODUCTS, Case, Step
from torch import nn
from torch.nn import functional

from anarch_core.engine.local import local_product
from anarch_core.geometry import ConvGeometry
from anarch_core.lattice import LCN, label_counts

Layer = tuple[nn.Conv2d, int, int, bool]  # convolution, side, batch, whether the input needs a gradient


def inner(batch: int = 250) -> Layer:
    return nn.Conv2d(64, 64, 5, padding=2), 8, batch, True


def first(batch: int = 250) -> Layer:
    return nn.Conv2d(3, 64, 4, stride=2, padding=2), 32, batch, False


def operands(layer: Layer) -> tuple[ConvGeometry, torch.Tensor, torch.Tensor]:
    conv, side, batch, needs = layer
    geometry = ConvGeometry.of(conv, (side, side))
    x = torch.randn(batch, conv.in_channels, side, side, requires_grad=needs)
    return geometry, x, torch.randn(batch, conv.out_channels, *geometry.output_size)


def backward(product: Callable[[], torch.Tensor], wanted: list[torch.Tensor], grad: torch.Tensor) -> Step:
    """A step that takes the product and its gradients."""
    wanted = [tensor for tensor in wanted if tensor.requires_grad]
    return lambda: torch.autograd.grad(product(), wanted, grad)


def ours(layer: Layer) -> Step:
    geometry, x, grad = operands(layer)
    groups, outputs, inputs = geometry.channel_block
    weight = torch.randn(*label_counts(LCN, geometry), groups, inputs, outputs, requires_grad=True)
    return backward(lambda: local_product(x, weight, geometry), [x, weight], grad)


def unfolded(layer: Layer, form: str) -> Step:
    """``unfold``, then one product over the patches; the weights include those that meet padding."""
    geometry, x, grad = operands(layer)
    conv = layer[0]
    positions, taps = geometry.positions, conv.weight[0].numel()
    weight = torch.randn(positions, taps, conv.out_channels, requires_grad=True)

    def product() -> torch.Tensor:
        patches = functional.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
        if form == "einsum":
            y = torch.einsum("bkp,pko->bop", patches, weight)
        else:
            y = torch.bmm(patches.permute(2, 0, 1), weight).permute(1, 2, 0)
        return y.unflatten(2, geometry.output_size)

    return backward(product, [x, weight], grad)


def broadcast(layer: Layer) -> Step:
    """The layer as in the textbooks: patches times weights elementwise, then a sum."""
    geometry, x, grad = operands(layer)
    conv = layer[0]
    weight = torch.randn(conv.out_channels, conv.in_channels, *geometry.output_size, *conv.kernel_size, requires_grad=True)
    before, stride = conv.padding[0], conv.stride[0]

    def product() -> torch.Tensor:
        padded = functional.pad(x, (before,) * 4)
        patches = padded.unfold(2, conv.kernel_size[0], stride).unfold(3, conv.kernel_size[1], stride)
        return (patches.unsqueeze(1) * weight).sum((2, 5, 6))

    return backward(product, [x, weight], grad)


def jax_local(layer: Layer) -> Step:
    import jax
    from jax import numpy as jnp

    geometry, x, grad = operands(layer)
    conv, _, _, needs = layer
    kernel, stride, before = conv.kernel_size, conv.stride, conv.padding[0]
    weight = jnp.asarray(torch.randn(conv.out_channels, conv.weight[0].numel(), *geometry.output_size).numpy())

    def product(inputs: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated_local(
            inputs, weights, stride, [(before, before)] * 2, kernel, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    @jax.jit
    def gradients(inputs: jax.Array, weights: jax.Array, cotangent: jax.Array) -> object:
        _, pull = jax.vjp(product, inputs, weights) if needs else jax.vjp(lambda w: product(inputs, w), weights)
        return pull(cotangent)

    inputs, cotangent = jnp.asarray(x.detach().numpy()), jnp.asarray(grad.numpy())
    weights = weight.transpose(0, 1, 2, 3)
    return lambda: jax.block_until_ready(gradients(inputs, weights, cotangent))


def products(layer: Layer) -> Step:
    """One product per position over patches that lie ready in the best order: output, weight gradient and, where needed, patch gradient."""
    geometry, x, _ = operands(layer)
    conv = layer[0]
    taps = (
        label_counts(LCN, geometry)[0] * label_counts(LCN, geometry)[1] * conv.in_channels // geometry.positions
    )  # on average, without padding
    batch = x.shape[0]
    patches, weight = torch.randn(geometry.positions, taps, batch), torch.randn(geometry.positions, taps, conv.out_channels)
    y, gx, gw = torch.randn(geometry.positions, conv.out_channels, batch), torch.empty_like(patches), torch.empty_like(weight)

    def step() -> None:
        torch.bmm(weight.transpose(1, 2), patches, out=y)
        torch.bmm(patches, y.transpose(1, 2), out=gw)
        if x.requires_grad:
            torch.bmm(weight, y, out=gx)

    return step


def case(make: Callable[..., Layer], title: str) -> Case:
    layer = make()
    geometry = operands(layer)[0]
    weights = label_counts(LCN, geometry)[0] * label_counts(LCN, geometry)[1] * layer[0].in_channels * layer[0].out_channels
    contenders = {
        "unfold + einsum": functools.partial(_built, make, unfolded, "einsum"),
        "unfold + bmm": functools.partial(_built, make, unfolded, "bmm"),
    }
    if importlib.util.find_spec("jax"):
        contenders["JAX conv_general_dilated_local"] = functools.partial(_built, make, jax_local)
    contenders |= {OURS: functools.partial(_built, make, ours), PRODUCTS: functools.partial(_built, make, products)}
    count = 3 if layer[3] else 2
    activations = geometry.pixels * geometry.in_channels + geometry.positions * geometry.out_channels
    return Case(title, contenders, flops=2 * count * weights * layer[2], bytes=4 * (count * weights + 2 * activations * layer[2]))


def small_case() -> Case:
    """The broadcast form, at a batch it can be run at."""
    make = functools.partial(inner, 4)
    contenders = {
        "broadcast": functools.partial(_built, make, broadcast),
        OURS: functools.partial(_built, make, ours),
        PRODUCTS: functools.partial(_built, make, products),
    }
    whole = case(make, "locally connected layer, 64 to 64 channels, 8 x 8, kernel 5, batch 4, beside the broadcast form")
    return Case(whole.title, contenders, whole.flops, whole.bytes)


def _built(make: Callable[[], Layer], contender: Callable[..., Step], *arguments: str) -> Step:
    return contender(make(), *arguments)
