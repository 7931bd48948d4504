"""A layer of the lattice as a piece of a chain: one product for all positions, whatever weights they share.

The padded input is kept, so that every position reads as many pixels as any other; in one dimension what they read are overlapping
views of it, and nothing is unfolded. The weights of each position are picked from those there are, W = A θ, and the gradients of the
positions are summed by A again.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import nn

from anarch_core.constraint.incidence import Index
from anarch_core.lattice.families import CONV, AbstractFamily, incidence, label_counts
from anarch_core.lattice.geometry import Axis, ConvGeometry
from anarch_core.ops.bilinear import accumulate
from anarch_core.ops.piece import Order, Pass, Piece

READ = 2**20
"""Numbers that all positions read of a batch, or weights that they read them by, at most: more do not stay in a cache."""

SUMMED = 2**22
"""Entries of a matrix that sums the gradients of positions by label, at most."""

FEW = 16
"""Positions of a convolution in several dimensions at most, where what they read is copied together."""

View = Callable[[torch.Tensor], torch.Tensor]
"""A parameter-shaped tensor seen in another shape, without a copy."""


@attrs.frozen(eq=False)
class Reading:
    """Which weights the positions of a layer multiply what they read with.

    Attributes:
        label: of every tap of every position, [positions, taps]; any label where a tap reads padding, which is zero.
        labels: how many there are.
        joined: the label and the tap, as an index among those of all positions, of every tap that reads a pixel.
        alike: every position has the same labels, in their order.
        unshared: the tap that each label has, [labels], where no two have the same; else None.
        bias: label of the bias of each position, [positions].
        biases: how many there are.
    """

    label: torch.Tensor
    labels: int
    joined: tuple[torch.Tensor, torch.Tensor]
    alike: bool
    unshared: torch.Tensor | None
    bias: torch.Tensor
    biases: int


def readable(family: AbstractFamily, geometry: ConvGeometry) -> bool:
    """Whether a layer can be taken position by position: ungrouped, and no position reads a pixel by several labels, or padding by any."""
    if geometry.groups > 1 or family.across_groups or min(geometry.output_size) < 1:
        return False
    joins = [incidence(family, axis) for axis in geometry.axes if axis.mode == "zeros"]
    return len(joins) == len(geometry.axes) and all(axis.single and axis.labels for axis in joins)


def _axis_labels(family: AbstractFamily, axis: Axis) -> Index:
    """Label of each tap of each position of an axis, -1 where it reads padding.

    The taps of a family that is not local are all pixels of the axis.
    """
    joins = incidence(family, axis)
    by_pair: Index = np.full((axis.positions, axis.size), -1)
    by_pair.ravel()[joins.pair] = joins.label
    if not family.local:
        return by_pair
    reads = axis.reads()
    return np.where(reads >= 0, np.take_along_axis(by_pair, np.maximum(reads, 0), 1), -1)


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # its tables are used again outside of the first call
def reading(family: AbstractFamily, geometry: ConvGeometry) -> Reading:
    """Of a layer that is :func:`readable`."""
    label, seen, labels = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=bool), 1
    bias, biases = np.zeros(1, dtype=np.int64), 1
    for axis in geometry.axes:
        own, count, bias_own = _axis_labels(family, axis), incidence(family, axis).labels, family.bias_labels(axis)
        label = (label[:, None, :, None] * count + np.maximum(own, 0)[None, :, None, :]).reshape(len(label) * len(own), -1)
        seen = (seen[:, None, :, None] & (own >= 0)[None, :, None, :]).reshape(label.shape)
        labels *= count
        bias = (bias[:, None] * (int(bias_own.max()) + 1) + bias_own).ravel()
        biases *= int(bias_own.max()) + 1
    taps = label.shape[1]
    alike = labels == taps and bool(((label == np.arange(taps)) | ~seen).all())
    which, where = torch.from_numpy(label[seen]), torch.from_numpy(np.flatnonzero(seen.ravel()))
    unshared = None
    if not alike and len(which) == labels == len(np.unique(label[seen])):
        unshared = torch.empty(labels, dtype=torch.int64).index_copy_(0, which, where)
    return Reading(torch.from_numpy(label), labels, (which, where), alike, unshared, torch.from_numpy(bias), biases)


class ByPosition(Piece):
    """A layer whose positions read equally many pixels, channels last.

    Args:
        family: of the layer.
        geometry: that makes it :func:`readable`.
        weight: in any layout.
        bias: likewise, or None.
        weight_view: of a weight-shaped tensor as [*labels, 1, outputs, inputs].
        bias_view: of a bias-shaped tensor as [*bias labels, outputs].
    """

    order: Order | None = "pixels"

    def __init__(
        self,
        family: AbstractFamily,
        geometry: ConvGeometry,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        weight_view: View,
        bias_view: View,
    ) -> None:
        self.parameters = (weight,) if bias is None else (weight, bias)
        self.family, self.geometry, self.weight_view, self.bias_view = family, geometry, weight_view, bias_view
        self.input_shape = (geometry.in_channels, *geometry.input_size)
        self.output_shape = (geometry.out_channels, *geometry.output_size)

    def pays(self, batch: int) -> bool:
        geometry, shared = self.geometry, self.family == CONV
        taps = math.prod(axis.kernel for axis in geometry.axes) if self.family.local else geometry.pixels
        read = geometry.positions * taps
        if shared and len(geometry.axes) > 1 and geometry.positions > FEW:
            return False
        summed = 0 if shared else read * math.prod(label_counts(self.family, geometry))
        return read * geometry.in_channels * max(batch, geometry.out_channels) <= READ and summed <= SUMMED

    def opened(self, batch: int, like: torch.Tensor) -> Pass:
        found = reading(self.family, self.geometry)
        windows = _Windows(self.geometry, batch, like) if self.family.local else _Everything(self.geometry, batch, like)
        return _PositionPass(self, found, windows, batch, like)


class _Windows:
    """What every position reads of a padded input, and the sum of what comes back from there."""

    def __init__(self, geometry: ConvGeometry, batch: int, like: torch.Tensor) -> None:
        axes, inputs = geometry.axes, geometry.in_channels
        kernel = [axis.kernel for axis in axes]
        taps = math.prod(kernel)
        padded = [axis.before + axis.size + axis.after for axis in axes]
        inner = tuple(slice(axis.before, axis.before + axis.size) for axis in axes)
        self._sizes = (*geometry.input_size, inputs, batch)
        pixels = like.new_zeros(*padded, inputs, batch)
        self._pixels = pixels[inner]
        steps = pixels.stride()[: len(axes)]
        sizes = (*geometry.output_size, *kernel, inputs, batch)
        strides = [*(axis.stride * step for axis, step in zip(axes, steps, strict=True))]
        strides += [*(axis.dilation * step for axis, step in zip(axes, steps, strict=True)), batch, 1]
        self._spread = pixels.as_strided(sizes, strides)
        self._fields: torch.Tensor | None = None
        if len(axes) == 1 and axes[0].dilation == 1:
            self.read = pixels.as_strided((geometry.positions, taps * inputs, batch), (strides[0], batch, 1))
        else:
            self.read = like.new_empty(geometry.positions, taps * inputs, batch)
            self._fields = self.read.view(sizes)
        self.back = like.new_empty(geometry.positions, taps * inputs, batch)
        self._gradient = like.new_zeros(*padded, inputs, batch)
        self._gx = self._gradient[inner]
        folded, back = self._gradient.as_strided(sizes, strides), self.back.view(sizes)
        d = len(axes)
        by_tap = [each.movedim(tuple(range(d, 2 * d)), tuple(range(d))) for each in (folded, back)]
        self._parts = [tuple(each[tap] for each in by_tap) for tap in itertools.product(*map(range, kernel))]

    def take(self, x: torch.Tensor) -> None:
        """Fill :attr:`read`, [positions, taps * inputs, batch], from inputs [numbers, batch]."""
        self._pixels.copy_(x.view(self._sizes))
        if self._fields is not None:
            self._fields.copy_(self._spread)

    def folded(self) -> torch.Tensor:
        """Input gradients [numbers, batch] of :attr:`back`, shaped as :attr:`read`."""
        self._gradient.zero_()
        for into, part in self._parts:
            into.add_(part)
        return self._gx.reshape(math.prod(self._sizes[:-1]), self._sizes[-1])


class _Everything:
    """The same where every position reads all pixels."""

    def __init__(self, geometry: ConvGeometry, batch: int, like: torch.Tensor) -> None:
        self._room = like.new_empty(geometry.pixels * geometry.in_channels, batch)
        self.read = self._room.expand(geometry.positions, *self._room.shape)
        self.back = like.new_empty(self.read.shape)

    def take(self, x: torch.Tensor) -> None:
        self._room.copy_(x)

    def folded(self) -> torch.Tensor:
        return self.back.sum(0)


class _PositionPass(Pass):
    def __init__(self, piece: ByPosition, found: Reading, windows: _Windows | _Everything, batch: int, like: torch.Tensor) -> None:
        geometry = piece.geometry
        inputs, outputs, positions = geometry.in_channels, geometry.out_channels, geometry.positions
        self._piece, self._found, self._windows = piece, found, windows
        weight, *bias = (parameter.detach() for parameter in piece.parameters)
        self._weight = piece.weight_view(weight)
        self._shape = self._weight.shape
        taps = found.label.shape[1]
        self._rows = like.new_empty(found.labels, inputs, outputs)
        self._rows_view = self._labelled(self._rows)
        self._label = found.label.flatten()
        self._by_row = self._rows.flatten(1)
        self._picked = None if found.alike else like.new_empty(positions * taps, inputs * outputs)
        own = self._rows if self._picked is None else self._picked
        self._matrices = own.view(-1, taps * inputs, outputs).expand(positions, -1, -1)
        self._transposed = self._matrices.transpose(1, 2)
        self._gradients = like.new_empty(positions, taps * inputs, outputs)
        self._gradient_rows = self._gradients.view(positions * taps, -1)
        self._joined = like.new_empty(0) if found.alike or found.unshared is not None else _counted(found, positions * taps, like)
        summed = torch.empty_like(self._rows)
        self._summed, self._summed_view = summed.view(taps * inputs, outputs) if found.alike else summed.flatten(1), self._labelled(summed)
        self._bias = piece.bias_view(bias[0]) if bias else weight.new_empty(0)
        self._biases = found.biases if bias else 0
        self._counted = None if self._biases in (0, 1, positions) else _indicator(found.bias, found.biases, like)
        self._y, self._sizes = like.new_empty(positions, outputs, batch), (positions, outputs, batch)
        self._flat = self._y.flatten(0, 1)

    def _labelled(self, rows: torch.Tensor) -> torch.Tensor:
        """[labels, inputs, outputs] seen as the view of the weight is."""
        *labels, groups, outputs, inputs = self._shape
        return rows.view(*labels, groups, inputs, outputs).transpose(-1, -2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._windows.take(x)
        self._rows_view.copy_(self._weight)
        if self._picked is not None:
            torch.index_select(self._by_row, 0, self._label, out=self._picked)
        if not self._biases:
            torch.bmm(self._transposed, self._windows.read, out=self._y)
        else:
            bias = self._bias.reshape(self._biases, -1, 1)
            if self._counted is not None:
                bias = bias.index_select(0, self._found.bias)
            torch.baddbmm(bias, self._transposed, self._windows.read, out=self._y)
        return self._flat

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        self._grad = grad.view(self._sizes)
        if not wanted:
            return None
        torch.bmm(self._matrices, self._grad, out=self._windows.back)
        return self._windows.folded()

    def accumulate(self, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
        if which == 0:
            torch.bmm(self._windows.read, self._grad.transpose(1, 2), out=self._gradients)
            view, gradient = self._weight if out is None else self._piece.weight_view(out), self._by_label()
        else:
            view = self._bias if out is None else self._piece.bias_view(out)
            by_position = self._grad.sum(2) if self._biases != 1 else self._grad.sum((0, 2))
            summed = by_position if self._counted is None else self._counted @ by_position
            gradient = summed.view(view.shape)
        accumulate(view, gradient, beta=beta, alpha=alpha)

    def _by_label(self) -> torch.Tensor:
        """The gradients of the positions, summed by label and seen as the view of the weight is."""
        found, summed = self._found, self._summed
        if found.alike:
            torch.sum(self._gradients, 0, out=summed)
        elif found.unshared is not None:
            torch.index_select(self._gradient_rows, 0, found.unshared, out=summed)
        else:
            torch.mm(self._joined, self._gradient_rows, out=summed)
        return self._summed_view


def _indicator(label: torch.Tensor, labels: int, like: torch.Tensor) -> torch.Tensor:
    """[labels, items], 1 where an item has that label."""
    return (label == torch.arange(labels).unsqueeze(1)).to(like.dtype)


def _counted(found: Reading, taps: int, like: torch.Tensor) -> torch.Tensor:
    """[labels, taps of all positions], 1 where a tap that reads a pixel has that label."""
    joined = like.new_zeros(found.labels, taps)
    joined[found.joined] = 1
    return joined
