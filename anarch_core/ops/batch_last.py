"""The products of a locally connected layer with the batch last in memory; for a CPU, where a group has few channels.

Matrices of few channels are too small to be multiplied one strip at a time. With the batch last, the rows that a kernel reads laid side by
side and a group's pixels following one another, the receptive field of every position in every group is a contiguous matrix with as many
columns as there are samples, a fixed distance from the next one. So a product of the whole layer is one batched product on overlapping
views, and what is copied is copied in runs as long as the batch. Weights, of which there are few, are filled up with zeros where a position
reads less than others. An input gradient is such a product too, with positions and pixels exchanged: one for every pixel of a stride.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch.nn import functional

from anarch_core.constraint.incidence import Index
from anarch_core.lattice.families import LCN, incidence, label_counts
from anarch_core.lattice.geometry import Axis, ConvGeometry
from anarch_core.ops.bilinear import accumulate
from anarch_core.ops.joins import Joins
from anarch_core.ops.strip_plan import local_joins, local_shapes

LARGEST = 2**18  # numbers of receptive fields laid out at a time, to stay in a cache


@attrs.frozen(eq=False)
class Windows:
    """Along one axis, what each item reads: of its sources ``span`` from ``first + step * item`` on, some beyond the axis or not its own.

    Attributes:
        items: how many.
        sources: of the whole axis.
        step: sources from one item's window to the next one's.
        first: where the first item's window starts; may be negative.
        span: sources of a window.
        pair: index of every pair of an item and a source.
        item: of each of those pairs.
        tap: of each of those pairs, where its source is in the window.
    """

    items: int
    sources: int
    step: int
    first: int
    span: int
    pair: Index
    item: Index
    tap: Index

    @classmethod
    def of(cls, pair: Index, item: Index, source: Index, *, items: int, sources: int, step: int) -> Windows:
        """The smallest windows that hold the source of every pair, of which there is one at least."""
        offset = source - step * item
        first = int(offset.min())
        return cls(items, sources, step, first, int(offset.max()) - first + 1, pair, item, offset - first)

    @property
    def length(self) -> int:
        """Sources that the windows cover together, beyond the axis or not."""
        return (self.items - 1) * self.step + self.span

    @property
    def inside(self) -> slice:
        """Sources of the axis that are in a window."""
        return slice(max(0, self.first), max(0, self.first, min(self.sources, self.first + self.length)))

    @property
    def places(self) -> int:
        """Items for which there is room where lines of sources follow one another; the zeros before a line are also after the last."""
        shared = min(max(0, -self.first), self.length)
        room: int = max(self.inside.stop - self.first, self.length - shared, (self.items - 1) * self.step + 1)
        return math.ceil(room / self.step)


@attrs.frozen(eq=False)
class Layout:
    """How the windows of some items lie.

    The weights of an item are one matrix, with a row for every source of its window and channel, [last axis, leading axes, channels]. Items
    are numbered over [leading axes, groups, places of the last axis].

    Attributes:
        windows: of every axis.
        groups: blocks of channels.
        inputs: channels of a group that are read.
        outputs: channels of a group that are written.
    """

    windows: tuple[Windows, ...]
    groups: int
    inputs: int
    outputs: int

    @property
    def lines(self) -> int:
        """Items of the leading axes."""
        return math.prod(window.items for window in self.windows[:-1])

    @property
    def rows(self) -> int:
        """Of an item's matrix."""
        return self.inputs * math.prod(window.span for window in self.windows)

    @property
    def items(self) -> int:
        """Of all axes and groups, with those that only fill room."""
        return self.lines * self.groups * self.windows[-1].places

    @property
    def step(self) -> int:
        """Numbers of a sample from one item's window to the next one's."""
        *leading, last = self.windows
        return last.step * math.prod(window.span for window in leading) * self.inputs


@attrs.frozen(eq=False)
class Product:
    """Sums over the windows of some items, of matrices of weights times what the windows hold.

    Activations are [*axis, groups, channels of a group, batch].

    Attributes:
        layout: of the windows.
        start: first target of every axis that is an item.
        every: targets from one item to the next, of every axis.
        blocks: blocks of weights that belong to these items; None where all do, in their order.
        slots: where each of them is among the weights of the items.
    """

    layout: Layout
    start: tuple[int, ...]
    every: tuple[int, ...]
    blocks: torch.Tensor | None
    slots: torch.Tensor

    def write(self, y: torch.Tensor, x: torch.Tensor, blocks: torch.Tensor) -> None:
        """Write the items among y for the sources x and blocks of weights [blocks, inputs, outputs]."""
        weights = self._weights(blocks).transpose(1, 2)
        y = y[tuple(slice(start, None, every) for start, every in zip(self.start, self.every, strict=True))]
        room = x.new_empty(self._at_once(x) * self._line_items, self.layout.outputs, x.shape[-1])
        for lines, items, fields in self._fields(x):
            values = torch.bmm(weights[items], fields, out=room[: len(fields)])
            self._in_items(y[lines]).copy_(self._in_places(values, y[lines]))

    def gradient(self, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Gradient of the blocks [blocks, inputs, outputs], where all belong to these items, and so do all output gradients."""
        layout = self.layout
        found = x.new_empty(layout.items, layout.rows, layout.outputs)
        room = x.new_zeros(self._at_once(x) * self._line_items, layout.outputs, x.shape[-1])
        for lines, items, fields in self._fields(x):
            right = room[: len(fields)]
            self._in_places(right, grad[lines]).copy_(self._in_items(grad[lines]))
            torch.bmm(fields, right.transpose(1, 2), out=found[items])
        blocks = found.view(-1, layout.inputs * layout.outputs).index_select(0, self.slots)
        return blocks.view(-1, layout.inputs, layout.outputs)

    def _weights(self, blocks: torch.Tensor) -> torch.Tensor:
        """[items, rows, outputs]."""
        layout = self.layout
        values = (blocks if self.blocks is None else blocks.index_select(0, self.blocks)).flatten(1)
        filled = values.new_zeros(layout.items * layout.rows // layout.inputs, values.shape[1])
        return filled.index_copy_(0, self.slots, values).view(layout.items, layout.rows, layout.outputs)

    def _fields(self, x: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Some lines at a time: which of the first axis, which items, and what these read, [items, rows, batch], overlapping."""
        layout, (*leading, last), batch = self.layout, self.layout.windows, x.shape[-1]
        spans, dims = tuple(window.span for window in leading), len(leading)
        items, step, at_once = self._line_items, layout.step * batch, self._at_once(x)
        x = self._unfolded(x)
        inner = (*(window.items for window in leading[1:]), layout.groups, last.places * last.step, *spans, layout.inputs, batch)
        before = last.inside.start - last.first
        # Laid out in the same room every time, between the same zeros; the last window may reach beyond its line.
        filled = x.new_zeros((at_once * items + last.span) * step)
        for k in range(0, leading[0].items if leading else 1, at_once):
            lines = slice(k, k + at_once) if leading else slice(None)
            part = x[lines] if leading else x[None]
            many = len(part)
            places = filled[: many * items * step].view(many, *inner)
            places.narrow(max(1, dims) + 1, before, x.shape[dims + 1]).copy_(part)
            yield lines, slice(k * items, (k + many) * items), filled.as_strided((many * items, layout.rows, batch), (step, batch, 1))

    @property
    def _line_items(self) -> int:
        """Items of one line of the first axis, where there are leading axes; else all."""
        leading = self.layout.windows[:-1]
        return self.layout.items // leading[0].items if leading else self.layout.items

    def _at_once(self, x: torch.Tensor) -> int:
        """Lines of the first axis that are laid out at a time."""
        leading, line = self.layout.windows[:-1], self._line_items * self.layout.step * x.shape[-1]
        return min(leading[0].items if leading else 1, max(1, LARGEST // max(1, line)))

    def _unfolded(self, x: torch.Tensor) -> torch.Tensor:
        """[*items of the leading axes, groups, sources of the last axis, *taps of the leading axes, channels of a group, batch], a view."""
        *leading, last = self.layout.windows
        dims = len(leading)
        for dim, window in enumerate(leading):
            pad = -window.first, window.length + window.first - window.sources
            if any(pad):
                x = functional.pad(x, (*(0, 0) * (x.ndim - 1 - dim), *pad))
        for dim, window in enumerate(leading):
            x = x.unfold(dim, window.span, window.step)
        x = x[(slice(None),) * dims + (last.inside,)]
        return x.permute(*range(dims), dims + 1, dims, *range(dims + 4, 2 * dims + 4), dims + 2, dims + 3)

    def _in_places(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """[items, outputs, batch] as [leading axes, groups, items of the last axis, outputs, batch], those that fill room left out."""
        *leading, _ = like.shape[:-3]
        last = self.layout.windows[-1]
        return values.view(*leading, self.layout.groups, last.places, *values.shape[1:])[..., : last.items, :, :]

    @staticmethod
    def _in_items(y: torch.Tensor) -> torch.Tensor:
        """[*axes, groups, outputs, batch] with the groups before the last axis."""
        return y.transpose(-3, -4)


@attrs.frozen(eq=False)
class BatchLast:
    """The three products of a layer.

    Attributes:
        outwards: of inputs and weights.
        back: of output gradients and weights, which together write every pixel that is read.
        complete: every pixel is written.
        groups: blocks of channels.
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: of the weight.
        joins: which weights join what.
    """

    outwards: Product
    back: tuple[Product, ...]
    complete: bool
    groups: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs] and a contiguous weight."""
        source = self._last(x, self.input_shape)
        target = source.new_empty(self._size(self.output_shape, len(y)))
        self.outwards.write(target, source, self._blocks(weight))
        y.copy_(target.view(-1, len(y)).t())

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs] and a contiguous weight."""
        source = self._last(grad, self.output_shape)
        target = (source.new_empty if self.complete else source.new_zeros)(self._size(self.input_shape, len(gx)))
        blocks = self._blocks(weight).transpose(1, 2).contiguous()
        for product in self.back:
            product.write(target, source, blocks)
        gx.copy_(target.view(-1, len(gx)).t())

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
        found = self.outwards.gradient(self._last(x, self.input_shape), self._last(grad, self.output_shape))
        accumulate(out, found.view_as(out), beta=beta, alpha=alpha)

    def _size(self, shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
        channels, *pixels = shape
        return *pixels, self.groups, channels // self.groups, batch

    def _last(self, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """[batch, pixels * channels] as [*pixels, groups, channels of a group, batch], in float32 where it is of lower precision."""
        return x.to(torch.promote_types(x.dtype, torch.float32)).t().contiguous().view(self._size(shape, len(x)))

    def _blocks(self, weight: torch.Tensor) -> torch.Tensor:
        """[blocks, inputs, outputs], in float32 where it is of lower precision."""
        return weight.to(torch.promote_types(weight.dtype, torch.float32)).view(-1, *self.weight_shape[-2:])


def outward_layout(geometry: ConvGeometry) -> Layout:
    """Of the positions, which read pixels."""
    groups, outputs, inputs = geometry.channel_block
    return Layout(tuple(map(reads_of, geometry.axes)), groups, inputs, outputs)


def back_layouts(geometry: ConvGeometry) -> dict[tuple[int, ...], Layout]:
    """Of the pixels, which are read by positions, for every first pixel of those that are a stride apart, if any position reads them."""
    groups, outputs, inputs = geometry.channel_block
    found = {}
    for start in itertools.product(*(range(min(axis.stride, axis.size)) for axis in geometry.axes)):
        windows = [_read_by(axis, phase) for axis, phase in zip(geometry.axes, start, strict=True)]
        read = tuple(window for window in windows if window is not None)
        if len(read) == len(windows):
            found[start] = Layout(read, groups, outputs, inputs)
    return found


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # its tables are used again outside of the first call
def batch_last_plan(geometry: ConvGeometry) -> BatchLast:
    """The products of a locally connected layer some of whose positions read something."""
    labels, dims = label_counts(LCN, geometry), len(geometry.axes)
    outwards = _product(outward_layout(geometry), (0,) * dims, (1,) * dims, labels)
    strides = tuple(axis.stride for axis in geometry.axes)
    back = tuple(_product(layout, start, strides, labels) for start, layout in back_layouts(geometry).items())
    pixels = sum(math.prod(window.items for window in product.layout.windows) for product in back)
    return BatchLast(outwards, back, pixels == geometry.pixels, geometry.groups, *local_shapes(geometry), local_joins(geometry))


def reads_of(axis: Axis) -> Windows:
    """The pixels of every position."""
    pair = incidence(LCN, axis).pair
    position, pixel = np.divmod(pair, axis.size)
    return Windows.of(np.arange(len(pair)), position, pixel, items=axis.positions, sources=axis.size, step=axis.stride)


def _read_by(axis: Axis, phase: int) -> Windows | None:
    """The positions that read each pixel among every ``stride``-th from ``phase`` on; None where none does."""
    position, pixel = np.divmod(incidence(LCN, axis).pair, axis.size)
    (pair,) = np.nonzero(pixel % axis.stride == phase)
    if not len(pair):
        return None
    items = len(range(phase, axis.size, axis.stride))
    return Windows.of(pair, pixel[pair] // axis.stride, position[pair], items=items, sources=axis.positions, step=1)


def _product(layout: Layout, start: tuple[int, ...], every: tuple[int, ...], labels: tuple[int, ...]) -> Product:
    """The product over some windows of a layer that has so many pairs along each axis."""
    *leading, last = layout.windows
    pair = line = tap = np.zeros(1, dtype=np.int64)
    for window, count in zip(leading, labels, strict=False):
        pair = (pair[:, None] * count + window.pair).ravel()
        line = (line[:, None] * window.items + window.item).ravel()
        tap = (tap[:, None] * window.span + window.tap).ravel()
    group, taps = np.arange(layout.groups), math.prod(window.span for window in leading)
    pair = pair[:, None, None] * labels[-1] + last.pair[:, None]
    item = (line[:, None, None] * layout.groups + group) * last.places + last.item[:, None]
    slot = (item * last.span + last.tap[:, None]) * taps + tap[:, None, None]
    blocks = (pair * layout.groups + group).ravel()
    whole = len(blocks) == math.prod(labels) * layout.groups
    return Product(layout, start, every, None if whole else torch.from_numpy(blocks), torch.from_numpy(slot.ravel()))
