"""The products of a locally connected layer in which every input channel is a group of its own, as elementwise products; for a CPU.

There is nothing to multiply matrices with: an output is a sum over taps only. With the channels last, and the weights of one tap lying
together as the positions do, all positions and channels are multiplied by the weights of a tap in one call, on views of the activations,
as many lines of the first axis at a time as fit a cache. Where a position has no such tap inside the image, the weight is zero.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import attrs
import numpy as np
import torch

from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.batch_last import Windows, reads_of
from anarch_core.ops.bilinear import accumulate
from anarch_core.ops.joins import Joins
from anarch_core.ops.strip_plan import local_joins, local_shapes

LARGEST = 2**19  # numbers summed at a time


@attrs.frozen(eq=False)
class Depthwise:
    """The three products of a layer.

    Attributes:
        windows: what positions read along each axis.
        slots: of every pair of a position and a pixel, the place of its weight in [taps * positions].
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: [*pairs of each axis, groups, 1, outputs of a group].
        joins: which weights join what.
    """

    windows: tuple[Windows, ...]
    slots: torch.Tensor
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs] and a contiguous weight."""
        source, target, planes = self._pixels(_exact(x)), self._positions(y), self._planes(weight)
        room = source.new_empty(_largest(target[0]))
        for plane, weights in zip(target, planes, strict=True):
            for samples, lines in _tiles(plane):
                total = _in(room, plane[samples, lines].shape).zero_()
                for tap, positions, pixels in self._taps(positions=lines):
                    within = _moved(positions, lines.start)
                    total[within].addcmul_(source[samples][pixels], weights[tap][positions[1:]])
                plane[samples, lines].copy_(total)

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs] and a contiguous weight."""
        source, target, planes = self._positions(_exact(grad)).contiguous(), self._pixels(gx), self._planes(weight)
        room = source.new_empty(_largest(target))
        for samples, lines in _tiles(target):
            total = _in(room, target[samples, lines].shape).zero_()
            for tap, positions, pixels in self._taps(pixels=lines):
                within = _moved(pixels, lines.start)
                for plane, weights in zip(source, planes, strict=True):
                    total[within].addcmul_(plane[samples][positions], weights[tap][positions[1:]])
            target[samples, lines].copy_(total)

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
        left, right = self._pixels(_exact(x)), self._positions(_exact(grad)).contiguous()
        found = left.new_zeros(self._planes_shape())
        room = left.new_empty(_largest(right[0]))
        for plane, gradient in zip(right, found, strict=True):
            for samples, lines in _tiles(plane):
                for tap, positions, pixels in self._taps(positions=lines):
                    factors = left[samples][pixels], plane[samples][positions]
                    gradient[tap][positions[1:]].add_(torch.mul(*factors, out=_in(room, factors[0].shape)).sum(0))
        groups, _, outputs = self.weight_shape[-3:]
        values = found.view(outputs, -1, groups).index_select(1, self.slots).movedim(0, -1)
        accumulate(out, values.reshape(out.shape), beta=beta, alpha=alpha)

    def _taps(self, positions: slice | None = None, pixels: slice | None = None) -> Iterator[tuple[int, _Index, _Index]]:
        """Every tap, with the positions that have it and the pixels that these read, of some lines; each an index of a batch of them."""
        along = []
        for window in self.windows:
            along.append([_meeting(window, window.first + offset, positions, pixels) for offset in range(window.span)])
            positions = pixels = None
        for number, found in enumerate(itertools.product(*along)):
            meeting = [pair for pair in found if pair is not None]
            if len(meeting) == len(found):
                yield number, (slice(None), *(pair[0] for pair in meeting)), (slice(None), *(pair[1] for pair in meeting))

    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs] as [batch, *pixels, groups]."""
        return x.view(len(x), *self.input_shape[1:], self.input_shape[0])

    def _positions(self, y: torch.Tensor) -> torch.Tensor:
        """[batch, outputs] as [outputs of a group, batch, *positions, groups]."""
        return y.view(len(y), *self.output_shape[1:], self.input_shape[0], -1).movedim(-1, 0)

    def _planes_shape(self) -> tuple[int, ...]:
        groups, _, outputs = self.weight_shape[-3:]
        return outputs, math.prod(window.span for window in self.windows), *self.output_shape[1:], groups

    def _planes(self, weight: torch.Tensor) -> torch.Tensor:
        """[outputs of a group, taps, *positions, groups], in float32 where it is of lower precision."""
        outputs, *shape, groups = self._planes_shape()
        values = _exact(weight).view(len(self.slots), groups * outputs)
        filled = values.new_zeros(math.prod(shape), groups * outputs).index_copy_(0, self.slots, values)
        return filled.view(*shape, groups, outputs).movedim(-1, 0).contiguous()


_Index = tuple[slice, ...]


def _exact(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _moved(index: _Index, start: int) -> _Index:
    """An index of lines as one of those from ``start`` on."""
    samples, lines, *rest = index
    return samples, slice(lines.start - start, lines.stop - start, lines.step), *rest


def _meeting(window: Windows, offset: int, positions: slice | None, pixels: slice | None) -> tuple[slice, slice] | None:
    """The positions that read ``offset`` further on than where they are, among some, a pixel among some; and those pixels."""
    first, last = (0, window.items) if positions is None else (positions.start, positions.stop)
    begin, end = (0, window.sources) if pixels is None else (pixels.start, pixels.stop)
    low, high = max(first, -((offset - begin) // window.step)), min(last, (end - 1 - offset) // window.step + 1)
    if low >= high:
        return None
    start = low * window.step + offset
    return slice(low, high), slice(start, start + (high - low - 1) * window.step + 1, window.step)


def _tiles(y: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Some samples and lines of [batch, lines, ...] at a time: all samples where they fit, since weights are read again for others."""
    batch, lines, *rest = y.shape
    line = max(1, math.prod(rest))
    samples = max(1, LARGEST // line)
    height = max(1, LARGEST // (line * max(1, min(batch, samples))))
    for sample, first in itertools.product(range(0, batch, samples), range(0, lines, height)):
        yield slice(sample, sample + samples), slice(first, min(lines, first + height))


def _largest(y: torch.Tensor) -> int:
    """Numbers of the largest tile of [batch, lines, ...]."""
    return max((y[tile].numel() for tile in itertools.islice(_tiles(y), 1)), default=0)


def _in(room: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The beginning of a flat tensor as one of a shape: fresh memory for every tile would cost as much as the products."""
    return room[: shape.numel()].view(shape)


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)  # its table is used again outside of the first call
def depthwise_plan(geometry: ConvGeometry) -> Depthwise:
    """The products of a locally connected layer whose groups have one input channel each and some of whose positions read something."""
    windows = tuple(map(reads_of, geometry.axes))
    tap = position = np.zeros(1, dtype=np.int64)
    for window in windows:
        tap = (tap[:, None] * window.span + window.tap).ravel()
        position = (position[:, None] * window.items + window.item).ravel()
    return Depthwise(windows, torch.from_numpy(tap * geometry.positions + position), *local_shapes(geometry), local_joins(geometry))
