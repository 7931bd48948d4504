"""A kernel as large as the image, applied row by row: dense products whose weights are shared, where images are small.

Along the first axis the weights a position reads lie next to each other, whatever the position; along the others they are spread into a
matrix from the pixels of a row to the positions of a row. So the layer is one product for each row of positions, of all that it reads with
a stretch of one small stack of matrices; the dense matrix of the whole layer is never made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import attrs
import torch

from anarch_core.lattice import AbstractFamily, Axis, ConvGeometry, incidence
from anarch_core.ops import Joins, accumulate, add_product, bilinear_product

SMALL = 2**20  # numbers of a dense matrix that costs less than the calls of a product by rows


def product_by_rows(x: torch.Tensor, weight: torch.Tensor, family: AbstractFamily, geometry: ConvGeometry) -> torch.Tensor:
    """The outputs of an ungrouped layer without its bias; differentiable to any order.

    Args:
        x: [batch, in_channels, *input size].
        weight: [out_channels, in_channels, *displacements of each axis].
        family: which displacements there are.
        geometry: of the layer.

    Returns:
        [batch, out_channels, *output size], channels last in memory; under autocast of autocast's dtype.
    """
    small = geometry.pixels * geometry.in_channels * geometry.positions * geometry.out_channels <= SMALL
    with torch.autocast(x.device.type, enabled=False):
        matrices = spread(weight, family, geometry, kept=0 if small else 1)
    if not small:
        return bilinear_product(x, matrices, row_kernels(family, geometry))
    y = x.movedim(1, -1).flatten(1) @ matrices
    return torch.unflatten(y, 1, (*geometry.output_size, geometry.out_channels)).movedim(-1, 1)


@attrs.frozen
class Stretch:
    """Consecutive rows of pixels that a row of positions reads by consecutive displacements."""

    position: int
    pixel: int
    label: int
    count: int


@attrs.frozen(eq=False)
class RowKernels:
    """The three products of a layer whose weight is spread along all axes but the first.

    Attributes:
        stretches: of every row of positions.
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: [displacements of the first axis, inputs of a row, outputs of a row].
        joins: which matrices join what.
    """

    stretches: tuple[Stretch, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs]."""
        total = y.to(torch.promote_types(y.dtype, torch.float32)).zero_()
        for rows, read, matrix in self._parts(total, x, weight):
            add_product(rows, read, matrix)
        if total is not y:
            y.copy_(total)

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs]."""
        gx.zero_()
        for rows, read, matrix in self._parts(grad, gx, weight):
            add_product(read, rows, matrix.t())

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``; what ``out`` holds does not matter where ``beta`` is 0."""
        total = out.new_zeros(out.shape, dtype=torch.promote_types(out.dtype, torch.float32))
        for rows, read, matrix in self._parts(grad, x, total):
            add_product(matrix, read.t(), rows)
        accumulate(out, total, beta=beta, alpha=alpha)

    def _parts(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For every stretch [batch, outputs of a row], [batch, inputs], [inputs, outputs of a row], as views."""
        _, inputs, outputs = self.weight_shape
        for s in self.stretches:
            rows = y[:, s.position * outputs : (s.position + 1) * outputs]
            read = x[:, s.pixel * inputs : (s.pixel + s.count) * inputs]
            yield rows, read, weight[s.label : s.label + s.count].flatten(0, 1)


@functools.lru_cache(maxsize=256)
def row_kernels(family: AbstractFamily, geometry: ConvGeometry) -> RowKernels:
    """The kernels of an ungrouped layer of a family that shares its weights."""
    first, *others = geometry.axes
    inputs = math.prod(axis.size for axis in others) * geometry.in_channels
    outputs = math.prod(axis.positions for axis in others) * geometry.out_channels
    return RowKernels(
        stretches=tuple(_stretches(family, first)),
        input_shape=(geometry.in_channels, *geometry.input_size),
        output_shape=(geometry.out_channels, *geometry.output_size),
        weight_shape=(incidence(family, first).labels, inputs, outputs),
        joins=Joins(family, (first,), (1, inputs, outputs)),
    )


def _stretches(family: AbstractFamily, axis: Axis) -> Iterator[Stretch]:
    entries = incidence(family, axis)
    found: Stretch | None = None
    for pair, label in sorted(zip(entries.pair.tolist(), entries.label.tolist(), strict=True), key=lambda entry: entry[0]):
        position, pixel = divmod(pair, axis.size)
        if found is not None and (position, pixel, label) == (found.position, found.pixel + found.count, found.label + found.count):
            found = attrs.evolve(found, count=found.count + 1)
            continue
        if found is not None:
            yield found
        found = Stretch(position, pixel, label, 1)
    if found is not None:
        yield found


def spread(weight: torch.Tensor, family: AbstractFamily, geometry: ConvGeometry, *, kept: int) -> torch.Tensor:
    """A weight [out_channels, in_channels, *displacements] as dense matrices; differentiable.

    Args:
        weight: of an ungrouped layer.
        family: of the layer.
        geometry: of the layer.
        kept: how many of the first axes stay axes of displacements.

    Returns:
        [*displacements of the axes kept, pixels of the others * inputs, positions of the others * outputs], channels last.
    """
    others = geometry.axes[kept:]
    d = len(others)
    matrices = weight.movedim((0, 1), (-1, -2))
    for dim, axis in enumerate(others):
        table = _table(family, axis, weight.dtype, weight.device)
        matrices = torch.tensordot(table, matrices, dims=([1], [kept + dim])).movedim(0, kept + dim)
    for dim, axis in enumerate(others):
        matrices = torch.unflatten(matrices, kept + 2 * dim, (axis.positions, axis.size))
    positions, pixels = range(kept, kept + 2 * d, 2), range(kept + 1, kept + 1 + 2 * d, 2)
    ordered = matrices.permute(*range(kept), *pixels, kept + 2 * d, *positions, kept + 1 + 2 * d)
    return ordered.flatten(kept, kept + d).flatten(kept + 1)


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # it is used again outside of the first call
def _table(family: AbstractFamily, axis: Axis, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """How often each label occurs at each pair of an axis, [positions * pixels, labels]."""
    return torch.from_numpy(incidence(family, axis).matrix.toarray()).to(device, dtype)
