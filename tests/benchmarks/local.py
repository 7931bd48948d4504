"""Forward and backward of one locally connected layer, and a training step of a network of them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import attrs
import dense
import torch
from local_layers import Broadcast, KerasMasked, KerasSlices, Unfolded, UnfoldedGroups
from measure import OURS, PRODUCTS, Case, Step
from torch import nn

from anarch_core.lattice.families import LCN, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax


@attrs.frozen
class Layer:
    """A convolution whose positions are not to share weights.

    Attributes:
        conv: without bias.
        side: of the input.
        batch: samples.
        inner: whether the input comes from another layer, so that it needs a gradient.
    """

    conv: nn.Conv2d
    side: int
    batch: int
    inner: bool

    @property
    def geometry(self) -> ConvGeometry:
        return ConvGeometry.of(self.conv, (self.side, self.side))

    @property
    def weights(self) -> int:
        """Pairs of a position and a pixel, times the channels that are connected."""
        rows, columns = label_counts(LCN, self.geometry)
        return rows * columns * self.conv.in_channels * self.conv.out_channels // self.conv.groups

    @property
    def products(self) -> int:
        """Output, weight gradient and, where needed, input gradient."""
        return 3 if self.inner else 2

    @property
    def flops(self) -> int:
        return 2 * self.products * self.weights * self.batch

    @property
    def bytes(self) -> int:
        """Every weight and every activation once per product it takes part in."""
        geometry = self.geometry
        activations = geometry.pixels * geometry.in_channels + geometry.positions * geometry.out_channels
        return 4 * (self.products * self.weights + 2 * activations * self.batch)

    def inputs(self, memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
        x = torch.randn(self.batch, self.conv.in_channels, self.side, self.side).contiguous(memory_format=memory_format)
        return x.requires_grad_(self.inner)


def first(batch: int = 250) -> Layer:
    return Layer(nn.Conv2d(3, 64, 4, stride=2, padding=2, bias=False), 32, batch, inner=False)


def inner(batch: int = 250) -> Layer:
    return Layer(nn.Conv2d(64, 64, 5, padding=2, bias=False), 8, batch, inner=True)


def last(batch: int = 250) -> Layer:
    return Layer(nn.Conv2d(64, 64, 3, padding=1, bias=False), 3, batch, inner=True)


def grouped() -> Layer:
    return Layer(nn.Conv2d(128, 128, 3, padding=1, groups=32, bias=False), 8, 100, inner=True)


def depthwise() -> Layer:
    return Layer(nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), 16, 100, inner=True)


def gradients(network: nn.Module, x: torch.Tensor) -> Step:
    """A step that takes the output and all gradients.

    The output's own gradient comes as from the layers that follow, which know two memory formats: channels last where the output is,
    else contiguous.
    """
    wanted = [tensor for tensor in (x, *network.parameters()) if tensor.requires_grad]
    y = network(x).detach()
    last = y.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(y, memory_format=torch.channels_last if last else torch.contiguous_format)
    return lambda: torch.autograd.grad(network(x), wanted, grad)


def ours(layer: Layer) -> Step:
    """Channels-last, as the training loop gives batches to such a network and its layers give activations to each other."""
    x = layer.inputs(torch.channels_last)
    return gradients(relax(nn.Sequential(layer.conv), "lcn", example_input=x[:1].detach(), check=False).model, x)


def theirs(layer: Layer, kind: Callable[[nn.Conv2d, int], nn.Module]) -> Step:
    return gradients(kind(layer.conv, layer.side), layer.inputs())


def keras(layer: Layer, kind: Callable[[nn.Conv2d, int], nn.Module]) -> Step:
    return gradients(kind(layer.conv, layer.side), layer.inputs(torch.channels_last))


def jax_local(layer: Layer) -> Step:
    import jax
    from jax import numpy as jnp

    conv, geometry = layer.conv, layer.geometry
    kernel, stride, before = conv.kernel_size, conv.stride, conv.padding[0]
    weights = jnp.asarray(torch.randn(conv.out_channels, conv.weight[0].numel(), *geometry.output_size).numpy())
    inputs = jnp.asarray(layer.inputs().detach().numpy())
    cotangent = jnp.asarray(torch.randn(layer.batch, conv.out_channels, *geometry.output_size).numpy())

    def product(inputs: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated_local(
            inputs, weights, stride, [(before, before)] * 2, kernel, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    @jax.jit
    def pulled_back(inputs: jax.Array, weights: jax.Array, cotangent: jax.Array) -> object:
        _, pull = jax.vjp(product, inputs, weights) if layer.inner else jax.vjp(lambda w: product(inputs, w), weights)
        return pull(cotangent)

    return lambda: jax.block_until_ready(pulled_back(inputs, weights, cotangent))


def products(layer: Layer) -> Step:
    """One product per position and group over patches in the best order: output, weight gradient and, where needed, patch gradient."""
    groups = layer.conv.groups
    positions, outputs = layer.geometry.positions * groups, layer.conv.out_channels // groups
    taps = layer.weights // (positions * outputs)  # on average, without padding
    patches, weight = torch.randn(positions, taps, layer.batch), torch.randn(positions, taps, outputs)
    y, gx, gw = torch.randn(positions, outputs, layer.batch), torch.empty_like(patches), torch.empty_like(weight)

    def step() -> None:
        torch.bmm(weight.transpose(1, 2), patches, out=y)
        torch.bmm(patches, y.transpose(1, 2), out=gw)
        if layer.inner:
            torch.bmm(weight, y, out=gx)

    return step


def case(make: Callable[[], Layer], title: str) -> Case:
    contenders: dict[str, Callable[[Layer], Step]] = {
        "unfold + einsum": functools.partial(theirs, kind=functools.partial(Unfolded, form="einsum")),
        "unfold + bmm": functools.partial(theirs, kind=Unfolded),
        "Keras 2, slices": functools.partial(keras, kind=KerasSlices),
        "Keras 2, masked dense kernel": functools.partial(keras, kind=KerasMasked),
    }
    if importlib.util.find_spec("jax"):
        contenders["JAX conv_general_dilated_local"] = jax_local
    return _case(make, title, contenders)


def small_case() -> Case:
    """The broadcast form, at a batch it can be run at."""
    title = "locally connected layer, 64 to 64 channels, 8 x 8, kernel 5, batch 4"
    return _case(functools.partial(inner, 4), title, {"broadcast": functools.partial(theirs, kind=Broadcast)})


def convolution(layer: Layer) -> Step:
    """What the layer was made from: as much arithmetic, with fewer weights."""
    return gradients(layer.conv.to(memory_format=torch.channels_last), layer.inputs(torch.channels_last))


def groups_case(make: Callable[[], Layer], title: str) -> Case:
    """Groups of few channels, beside the convolution."""
    return _case(make, title, {"convolution": convolution, "unfold + einsum": functools.partial(theirs, kind=UnfoldedGroups)})


def _case(make: Callable[[], Layer], title: str, contenders: dict[str, Callable[[Layer], Step]]) -> Case:
    contenders = {**contenders, OURS: ours, PRODUCTS: products}
    layer = make()
    return Case(
        title, {name: functools.partial(_built, make, contender) for name, contender in contenders.items()}, layer.flops, layer.bytes
    )


def _built(make: Callable[[], Layer], contender: Callable[[Layer], Step]) -> Step:
    return contender(make())


def network(kind: Callable[[nn.Conv2d, int], nn.Module]) -> nn.Module:
    """The VanillaCNN with every convolution replaced by a locally connected layer."""
    model = build_model("vanilla-cnn", input_shape=(3, dense.SIDE, dense.SIDE), classes=10)
    x = torch.zeros(1, 3, dense.SIDE, dense.SIDE)
    for index, module in enumerate(model.features):
        if isinstance(module, nn.Conv2d):
            model.features[index] = kind(module, x.shape[-1])
        x = module(x)
    return model


def train_theirs(kind: Callable[[nn.Conv2d, int], nn.Module]) -> Step:
    return dense.descending(network(kind))


def all_products() -> Step:
    steps = [products(make()) for make in (first, inner, last)]
    return lambda: [step() for step in steps]


def network_case() -> Case:
    layers = [first(), inner(), last()]
    return Case(
        title="LCN training step, VanillaCNN, batch 250",
        contenders={
            "unfold + bmm": functools.partial(train_theirs, Unfolded),
            "Keras 2, slices": functools.partial(train_theirs, KerasSlices),
            OURS: functools.partial(dense.ours, "lcn"),
            PRODUCTS: all_products,
        },
        flops=sum(layer.flops for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
    )
