"""The products of a locally connected layer as one batched product each, of inputs gathered by index; for a GPU, and for small layers.

Where calls cost more than copies (on a GPU, in layers of many groups, in small networks), every position's receptive field is gathered
by one call and multiplied with its weights by another; positions that read less than others are filled up with zeros. The input gradient
is such a product too, with positions and pixels exchanged, so nothing is ever scattered: every sum has one order on every device.
"""

from __future__ import annotations

import functools

import attrs
import numpy as np
import torch

from anarch_core.constraint.incidence import Index
from anarch_core.lattice.families import LCN, incidence
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.joins import Joins, in_rows
from anarch_core.ops.strip_plan import local_joins, local_shapes

LARGEST = 2**26  # numbers gathered at a time


@attrs.frozen(eq=False)
class Table:
    """For each item (a position or a pixel, in one group) the blocks of weights it meets and what is at their other end.

    Attributes:
        block: [items, most]; 0 where a row is filled up.
        other: [items, most]; one past the last where a row is filled up.
    """

    block: torch.Tensor
    other: torch.Tensor

    @classmethod
    def of(cls, item: Index, items: int, other: Index, others: int, device: torch.device) -> Table:
        """One row per item, its blocks in order; ``item`` and ``other`` are the two ends of every block."""
        order, row, column, most = in_rows(item, items)
        blocks, ends = np.zeros((items, most), dtype=np.int64), np.full((items, most), others, dtype=np.int64)
        blocks[row, column], ends[row, column] = order, other[order]
        return cls(torch.from_numpy(blocks).to(device), torch.from_numpy(ends).to(device))


@attrs.frozen(eq=False)
class Gathers:
    """The three products of a layer.

    A block of weights, [inputs, outputs], joins an input item (a pixel in a group) to an output item (a position in a group).

    Attributes:
        inputs: numbers of an input item.
        outputs: numbers of an output item.
        source: input item of every block.
        target: output item of every block.
        reads: blocks of every output item.
        read_by: blocks of every input item.
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: of the weight.
        joins: which weights join what.
    """

    inputs: int
    outputs: int
    source: torch.Tensor
    target: torch.Tensor
    reads: Table
    read_by: Table
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs] and a contiguous weight."""
        _multiply(y, x, weight.view(-1, self.inputs, self.outputs), self.reads)

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs] and a contiguous weight."""
        _multiply(gx, grad, weight.view(-1, self.inputs, self.outputs).transpose(1, 2), self.read_by)

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
        blocks, batch = out.view(-1, self.inputs, self.outputs), len(x)
        left, right = _items(x, self.inputs), _items(grad, self.outputs)
        size = max(1, LARGEST // max(1, batch * max(self.inputs, self.outputs)))
        for into, source, target in zip(*(torch.split(each, size) for each in (blocks, self.source, self.target)), strict=True):
            into.baddbmm_(left.index_select(0, source), right.index_select(0, target).transpose(1, 2), beta=beta, alpha=alpha)


def _multiply(y: torch.Tensor, x: torch.Tensor, blocks: torch.Tensor, table: Table) -> None:
    """Write y [batch, items * n]: each item the sum over its blocks [m, n] of the x items [m] at their other end."""
    (items, most), (_, m, n), batch = table.block.shape, blocks.shape, len(x)
    if most == 0:
        y.zero_()
        return
    values = _items(x, m)
    values = torch.cat([values, values.new_zeros(1, m, batch)])
    out = y.view(batch, items, n)
    size = max(1, LARGEST // max(1, most * m * batch))
    for start in range(0, items, size):
        rows = slice(start, start + size)
        other = table.other[rows]
        read = values.index_select(0, other.flatten()).view(len(other), most * m, batch)
        weights = blocks.index_select(0, table.block[rows].flatten()).reshape(-1, most * m, n)
        out[:, rows].copy_(torch.bmm(read.transpose(1, 2), weights).transpose(0, 1))


def _items(x: torch.Tensor, size: int) -> torch.Tensor:
    """[batch, items * size] as [items, size, batch]."""
    return x.t().contiguous().view(x.shape[1] // size, size, len(x))


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # its tables are used again outside of the first call
def gather_plan(geometry: ConvGeometry, device: torch.device) -> Gathers:
    """The products of a locally connected layer on a device."""
    groups, outputs, inputs = geometry.channel_block
    position = pixel = np.zeros(1, dtype=np.int64)
    for axis in geometry.axes:
        pair = incidence(LCN, axis).pair
        position = (position[:, None] * axis.positions + pair // axis.size).ravel()
        pixel = (pixel[:, None] * axis.size + pair % axis.size).ravel()
    group = np.arange(groups)
    target, source = (position[:, None] * groups + group).ravel(), (pixel[:, None] * groups + group).ravel()
    targets, sources = geometry.positions * groups, geometry.pixels * groups
    input_shape, output_shape, weight_shape = local_shapes(geometry)
    return Gathers(
        inputs=inputs,
        outputs=outputs,
        source=torch.from_numpy(source).to(device),
        target=torch.from_numpy(target).to(device),
        reads=Table.of(target, targets, source, sources, device),
        read_by=Table.of(source, sources, target, targets, device),
        input_shape=input_shape,
        output_shape=output_shape,
        weight_shape=weight_shape,
        joins=local_joins(geometry),
    )
