"""What layers contribute to a tangent kernel, in parts and without their gradients.

The gradient of a dense weight is an outer product, so inner products of such gradients are products of inner products. Those of a local
weight are sums over positions of such, and those of a convolution need rows as long as its weight, which is small.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vjp, vmap

from anarch_core.constraint.incidence import NOTHING
from anarch_core.curvature.gradient_rows import products
from anarch_core.curvature.taps import LayerKernel
from anarch_core.lattice.families import CONV, EFCN, LCN, share_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.base import whole_modules
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, inverse_root
from anarch_core.layers.locally_connected import LocallyConnectedLayer

BLOCK = 2**23
"""Numbers of rows that are made at once."""

Parts = dict[str, torch.Tensor]


def layer_kernels(model: nn.Module, scale: Mapping[str, torch.Tensor]) -> dict[str, LayerKernel]:
    """What is known of the layers of a network, by path, in the orthonormal coordinates of :class:`~anarch_core.probe.ParameterParts`.

    Known are linear layers, convolutions and layers of the lattice, both padded with zeros, and normalisations that mix no samples; of
    these, what is computed as PyTorch or the lattice computes it, from parameters of its own.

    Args:
        model: the network.
        scale: of the coordinates, by the name of a parameter.
    """
    found: dict[str, LayerKernel] = {}
    for path, module in whole_modules(model):
        parameters = dict(module.named_parameters())
        if not any(parameter.requires_grad for parameter in parameters.values()) or "forward" in vars(module):
            continue
        if not parameters.keys() <= {"weight", "bias"} or list(module.children()):
            continue
        trained = frozenset(name for name, parameter in parameters.items() if parameter.requires_grad)
        prefix = f"{path}." if path else ""
        kernel = _kernel(module, trained, {name: scale[prefix + name] for name in trained if prefix + name in scale})
        if kernel is not None and all(parameters.get(name) is getattr(module, name, None) for name in ("weight", "bias")):
            found[path] = kernel
    return found


def _kernel(module: nn.Module, trained: frozenset[str], scale: Mapping[str, torch.Tensor]) -> LayerKernel | None:
    kind = type(module)
    if kind is nn.Linear:
        return functools.partial(_linear, trained)
    if isinstance(module, LatticeLayer):
        if any(axis.mode != "zeros" for axis in module.geometry.axes):
            return None
        if kind in (FullyConnectedLayer, LocallyConnectedLayer) and module.family in (EFCN, LCN):
            return _Lattice(module.geometry, trained, freed=True, dense=module.family == EFCN).parts
        return None if module.family.dense else functools.partial(_sharing, module, trained, scale)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return functools.partial(_convolution, module, trained) if module.padding_mode == "zeros" else None
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm):
        return functools.partial(_normalisation, module, trained)
    return None


def _convolution(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, trained: frozenset[str], given: torch.Tensor, slopes: torch.Tensor) -> Parts:
    return _Lattice(ConvGeometry.of(conv, tuple(given.shape[2:])), trained, freed=False, dense=False).parts(given, slopes)


def _sharing(
    layer: LatticeLayer, trained: frozenset[str], scale: Mapping[str, torch.Tensor], given: torch.Tensor, slopes: torch.Tensor
) -> Parts:
    """Of a layer of another family, whose weights stand for several entries: they are few, so their gradients are made.

    What is not shared is all unshared or all off-local, as in :meth:`~anarch_core.layers.lattice_layer.LatticeLayer.split`.
    """
    names = sorted(trained)
    step = max(1, BLOCK // sum(layer.get_parameter(name).numel() for name in names))
    blocks = zip(torch.split(given, step), torch.split(slopes, step), strict=True)
    made = [_gradients(layer, names, *block) for block in blocks]
    whole = _zeros(given)
    for name in names:
        gradient = torch.cat([block[name] for block in made])
        whole += products((gradient * scale[name].to(gradient) if name in scale else gradient).flatten(1))
    shared = _Lattice(layer.geometry, trained, freed=False, dense=False).parts(given, slopes)["shared"]
    return {"shared": shared, "unshared" if layer.family.local else "off-local": whole - shared}


def _gradients(layer: nn.Module, names: Sequence[str], given: torch.Tensor, slopes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of parameters, by name, for every sample, [n, *shape]; together where the layer's operations allow it."""
    parameters = {name: layer.get_parameter(name) for name in names}

    def of_one(sample: torch.Tensor, slope: torch.Tensor) -> dict[str, torch.Tensor]:
        constants = {name: parameter.detach() for name, parameter in parameters.items()}
        pull = vjp(lambda some: functional_call(layer, some, (sample[None],)), constants)[1]
        found: dict[str, torch.Tensor] = pull(slope[None])[0]
        return found

    try:
        together: dict[str, torch.Tensor] = vmap(of_one)(given, slopes)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # a backward pass of its own that knows of no vmap
        pairs = zip(torch.split(given, 1), torch.split(slopes, 1), strict=True)
        one_by_one = [torch.autograd.grad(layer(sample), list(parameters.values()), slope) for sample, slope in pairs]
        return {name: torch.stack(rows) for name, rows in zip(names, zip(*one_by_one, strict=True), strict=True)}
    return together


def _linear(trained: frozenset[str], given: torch.Tensor, slopes: torch.Tensor) -> Parts:
    """Of [n, ..., inputs] and [n, ..., outputs]."""
    rows = slopes.reshape(len(slopes), -1, slopes.shape[-1])
    total = _zeros(given)
    if "bias" in trained:
        total += products(rows.sum(1))
    if "weight" in trained:
        inputs = given.reshape(len(given), -1, given.shape[-1])
        if inputs.shape[1] == 1:
            total += products(rows[:, 0]) * products(inputs[:, 0])
        else:
            step = max(1, BLOCK // (len(inputs) * inputs.shape[2]))
            for some in torch.split(rows, step, 2):
                total += products((some.mT @ inputs).flatten(1))
    return {"shared": total}


def _normalisation(module: nn.Module, trained: frozenset[str], given: torch.Tensor, slopes: torch.Tensor) -> Parts:
    """Gradients by the weight and the bias after a normalisation are short, so they are made."""
    if isinstance(module, nn.LayerNorm):
        normed = nn.functional.layer_norm(given, module.normalized_shape, eps=module.eps)
        others = tuple(range(1, given.ndim - len(module.normalized_shape)))
    else:
        normed = (
            nn.functional.group_norm(given, module.num_groups, eps=module.eps)
            if isinstance(module, nn.GroupNorm)
            else nn.functional.batch_norm(given, module.running_mean, module.running_var, eps=module.eps)  # type: ignore[arg-type]
        )
        others = tuple(range(2, given.ndim))
    total = _zeros(given)
    for name, rows in (("weight", slopes * normed), ("bias", slopes)):
        if name in trained:
            total += products((rows.sum(others) if others else rows).flatten(1))
    return {"shared": total}


class _Lattice:
    """A convolution, or a layer that was one, at one input size.

    Attributes:
        geometry: of the convolution, padded with zeros.
        trained: which of ``"weight"`` and ``"bias"`` count.
        freed: whether every position has weights and biases of its own.
        dense: whether there are weights outside of the receptive fields and between groups as well.
    """

    def __init__(self, geometry: ConvGeometry, trained: frozenset[str], *, freed: bool, dense: bool) -> None:
        self.geometry, self.trained, self.freed, self.dense = geometry, trained, freed, dense
        self._pixels = torch.from_numpy(_read_pixels(geometry))
        self._scale = inverse_root(torch.from_numpy(share_counts(CONV, geometry))).flatten()

    def parts(self, given: torch.Tensor, slopes: torch.Tensor) -> Parts:
        """The kernels by part, of [n, in_channels, *input size] and [n, out_channels, *output size]."""
        slopes = slopes.flatten(2)
        shared, local, whole = _zeros(given), _zeros(given), _zeros(given)
        if "weight" in self.trained:
            shared += self._shared(given, slopes)
            if self.freed:
                local += self._local(given, slopes)
                whole += products(slopes.flatten(1)) * products(given.flatten(1)) if self.dense else local
        if "bias" in self.trained:
            shared += products(slopes.sum(2)) / self.geometry.positions
            if self.freed:
                biases = products(slopes.flatten(1))
                local += biases
                whole += biases
        if not self.freed:
            return {"shared": shared}
        return {"shared": shared, "unshared": local - shared, **({"off-local": whole - local} if self.dense else {})}

    def _shared(self, given: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """By the weight of the convolution, each tap times n^(-1/2)."""
        groups, outputs, inputs = self.geometry.channel_block
        samples, taps = len(given), inputs * self._pixels.shape[1]
        step = max(1, BLOCK // (samples * groups * taps))
        few = max(1, BLOCK // (groups * taps * self.geometry.positions))
        scale = self._scale.to(given).repeat(inputs)
        total = _zeros(given)
        for some in torch.split(slopes.reshape(samples, groups, outputs, -1), step, 2):
            blocks = zip(torch.split(some, few), torch.split(given, few), strict=True)
            rows = [(block @ self._patches(images, slice(None))) * scale for block, images in blocks]
            total += products(torch.cat([block.flatten(1) for block in rows]))
        return total

    def _local(self, given: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """By weights of every position: sums over positions of products of inner products."""
        groups, outputs, inputs = self.geometry.channel_block
        samples, numbers = len(given), groups * max(inputs * self._pixels.shape[1], outputs)
        step = max(1, BLOCK // (samples * max(samples * groups, numbers)))
        grouped = slopes.reshape(samples, groups, outputs, -1)
        total = _zeros(given)
        for start in range(0, self.geometry.positions, step):
            some = slice(start, start + step)
            left = grouped[..., some].permute(1, 3, 0, 2).double()
            right = self._patches(given, some).permute(1, 2, 0, 3).double()
            total += ((left @ left.mT) * (right @ right.mT)).sum((0, 1))
        return total

    def _patches(self, given: torch.Tensor, positions: slice) -> torch.Tensor:
        """What each position reads, [n, groups, positions, inputs * taps]; zeros where it reads padding."""
        groups, _, inputs = self.geometry.channel_block
        padded = nn.functional.pad(given.flatten(2), (0, 1))
        patches = padded[:, :, self._pixels[positions].to(given.device)]
        return patches.reshape(len(given), groups, inputs, *patches.shape[2:]).transpose(2, 3).flatten(3)


def _read_pixels(geometry: ConvGeometry) -> NDArray[np.int64]:
    """The pixel under every tap of every position, [positions, taps]; one past the last pixel for padding."""
    flat, outside = np.zeros((1, 1), np.int64), np.zeros((1, 1), bool)
    for axis in geometry.axes:
        reads = axis.reads()
        flat = (flat[:, None, :, None] * axis.size + reads[None, :, None, :]).reshape(len(flat) * len(reads), -1)
        outside = (outside[:, None, :, None] | (reads == NOTHING)[None, :, None, :]).reshape(flat.shape)
    return np.where(outside, geometry.pixels, flat)


def _zeros(given: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(given), len(given), dtype=torch.float64, device=given.device)
