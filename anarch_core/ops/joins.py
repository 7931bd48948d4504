"""The products of a layer in ordinary operations, which PyTorch can map over weights, trace and export.

A weight joins pixels to positions. Along each axis the joins are a table, by what a product sums up for: outputs by position, an input
gradient by pixel, a weight gradient by label. So each product gathers along every axis and is one ``einsum``. It is not as fast as a
layer's own kernels, but it depends on no batch size, and any factor may be a stack.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch.nn import functional

from anarch_core.constraint.incidence import Index
from anarch_core.lattice.families import AbstractFamily, incidence
from anarch_core.lattice.geometry import Axis

ITEMS, TERMS = "pqr", "klm"  # letters of the axes in an equation


@attrs.frozen(eq=False)
class Table:
    """What is joined to each item (a position, a pixel or a label) of one axis, [items, most] each, rows filled up at their end.

    Attributes:
        position: one past the last where a row is filled up.
        pixel: one past the last where a row is filled up.
        label: 0 where a row is filled up.
    """

    position: Index
    pixel: Index
    label: Index

    @classmethod
    def of(cls, family: AbstractFamily, axis: Axis, by: str) -> Table:
        """The table of an axis by ``"position"``, ``"pixel"`` or ``"label"``."""
        joins = incidence(family, axis)
        ends = {"position": joins.pair // axis.size, "pixel": joins.pair % axis.size, "label": joins.label}
        fill = {"position": axis.positions, "pixel": axis.size, "label": 0}
        items = {"position": axis.positions, "pixel": axis.size, "label": joins.labels}[by]
        order, row, column, most = in_rows(ends[by], items)
        filled = {name: np.full((items, most), fill[name]) for name in ends}
        for name, values in ends.items():
            filled[name][row, column] = values[order]
        return cls(**filled)


def in_rows(item: Index, items: int) -> tuple[Index, Index, Index, int]:
    """How entries are listed by the item that each belongs to, those of an item in their order.

    Returns:
        the entries row by row; the row and the column of each of them; and how many the longest row has.
    """
    order = np.argsort(item, kind="stable")
    counts = np.bincount(item, minlength=items)
    row = item[order]
    return order, row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row], int(counts.max(initial=0))


@attrs.frozen
class Joins:
    """Which blocks of a weight, [inputs, outputs] of one group, stand between which pixels and positions.

    Activations are [batch, pixels * channels], weights are shaped as the numbers of [*labels, groups, inputs, outputs]. A factor with
    one more dimension, in front, is a stack, and so is the product of it.

    Attributes:
        family: that says which label joins what, along each axis.
        axes: of pixels and positions.
        block: groups, inputs and outputs of a group.
    """

    family: AbstractFamily
    axes: tuple[Axis, ...]
    block: tuple[int, int, int]

    def outputs(self, x: torch.Tensor, weight: torch.Tensor, *, stacked: tuple[bool, bool]) -> torch.Tensor:
        """Outputs of inputs and a weight, of which those ``stacked`` are stacks."""
        tables = self._tables("position", x.device)
        maps = self._input_map(x), self._blocks(weight, stack=stacked[1])
        return outputs(*maps, [table["pixel"] for table in tables], [table["label"] for table in tables], stacked=stacked)

    def input_gradient(self, grad: torch.Tensor, weight: torch.Tensor, *, stacked: tuple[bool, bool]) -> torch.Tensor:
        """Input gradients of output gradients and a weight, of which those ``stacked`` are stacks."""
        tables = self._tables("pixel", grad.device)
        maps = self._output_map(grad), self._blocks(weight, stack=stacked[1]).mT
        return outputs(*maps, [table["position"] for table in tables], [table["label"] for table in tables], stacked=stacked)

    def weight_gradient(self, x: torch.Tensor, grad: torch.Tensor, *, stacked: tuple[bool, bool]) -> torch.Tensor:
        """Weight gradients [stack, *labels, groups, inputs, outputs] of inputs and output gradients, of which at least one is a stack."""
        tables = self._tables("label", x.device)
        left = gathered(self._input_map(x), [table["pixel"] for table in tables], trailing=2, fill=True)
        right = gathered(self._output_map(grad), [table["position"] for table in tables], trailing=2, fill=True)
        items, where = _letters(len(tables))
        first, second = ("n" if stack else "" for stack in stacked)
        return torch.einsum(f"{first}b{where}gi,{second}b{where}go->n{items}gio", left, right)

    def _tables(self, by: str, device: torch.device) -> list[dict[str, torch.Tensor]]:
        found = [table(self.family, axis, by) for axis in self.axes]
        return [{name: torch.from_numpy(index).to(device) for name, index in attrs.asdict(each).items()} for each in found]

    def _input_map(self, x: torch.Tensor) -> torch.Tensor:
        groups, inputs, _ = self.block
        return torch.unflatten(x, -1, (*(axis.size for axis in self.axes), groups, inputs))

    def _output_map(self, y: torch.Tensor) -> torch.Tensor:
        groups, _, outputs = self.block
        return torch.unflatten(y, -1, (*(axis.positions for axis in self.axes), groups, outputs))

    def _blocks(self, weight: torch.Tensor, *, stack: bool) -> torch.Tensor:
        labels = (incidence(self.family, axis).labels for axis in self.axes)
        return weight.reshape(*weight.shape[:1] if stack else (), *labels, *self.block)


@functools.lru_cache(maxsize=512)
def table(family: AbstractFamily, axis: Axis, by: str) -> Table:
    """The table of an axis by ``"position"``, ``"pixel"`` or ``"label"``, computed once."""
    return Table.of(family, axis, by)


def outputs(
    x: torch.Tensor,
    blocks: torch.Tensor,
    pixels: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    *,
    stacked: tuple[bool, bool] = (False, False),
) -> torch.Tensor:
    """For every position the sum over what it is joined to.

    Args:
        x: [batch, *pixels, groups, inputs].
        blocks: [*labels, groups, inputs, outputs].
        pixels: of each axis, [positions, most]; one past the last where a row is filled up.
        labels: of each axis, [positions, most].
        stacked: which of x and blocks have one more dimension, in front.

    Returns:
        [batch, positions * groups * outputs], with one more dimension in front where x or blocks have it.
    """
    left, right = gathered(x, pixels, trailing=2, fill=True), gathered(blocks, labels, trailing=3, fill=False)
    items, where = _letters(len(pixels))
    first, second = ("n" if stack else "" for stack in stacked)
    stack = "n" if any(stacked) else ""
    return torch.einsum(f"{first}b{where}gi,{second}{where}gio->{stack}b{items}go", left, right).flatten(-2 - len(pixels))


def gathered(values: torch.Tensor, tables: Sequence[torch.Tensor], *, trailing: int, fill: bool) -> torch.Tensor:
    """[..., *axes, *trailing] read by a table [items, most] for each axis: [..., *(items, most of each axis), *trailing].

    Args:
        values: to be read.
        tables: of each axis.
        trailing: dimensions after the axes.
        fill: whether the tables also read one past the last, where there are zeros.
    """
    for number, indices in enumerate(tables):
        dim = number - len(tables) - trailing
        if fill:
            values = functional.pad(values, [0, 0] * (-1 - dim) + [0, 1])
        values = torch.unflatten(values.index_select(dim, indices.flatten()), dim, indices.shape)
    return values


def _letters(axes: int) -> tuple[str, str]:
    """Letters of the items of so many axes, and those of items and terms in turn."""
    return ITEMS[:axes], "".join(map("".join, zip(ITEMS[:axes], TERMS[:axes], strict=True)))
