"""Which batched matrix products a locally connected layer is the sum of."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import attrs

from anarch_core.geometry import Axis, ConvGeometry
from anarch_core.lattice import LCN, incidence, label_counts


@attrs.frozen
class Block:
    """One batched product: item ``k`` takes ``rows`` rows of the inputs to ``outputs`` rows of the outputs.

    Rows of inputs and outputs are numbered over [pixels * in_channels] and [positions * out_channels]; a row holds the batch. Weights are
    numbered one by one.

    Attributes:
        count: items.
        rows: input rows of an item.
        outputs: output rows of an item.
        x_start: first input row of the first item.
        x_step: input rows from one item to the next; items overlap where it is smaller than ``rows``.
        y_start: first output row.
        y_step: output rows from one item to the next.
        w_start: first weight; an item's weights are a contiguous [rows, outputs].
        w_step: weights from one item to the next.
    """

    count: int
    rows: int
    outputs: int
    x_start: int
    x_step: int
    y_start: int
    y_step: int
    w_start: int
    w_step: int

    def disjoint(self) -> Iterator[Block]:
        """The same products in blocks whose items do not share input rows, so that a block can be added into them in one call."""
        stagger = self.count if self.x_step == 0 else min(self.count, -(-self.rows // self.x_step))
        for first in range(stagger):
            yield attrs.evolve(
                self,
                count=len(range(first, self.count, stagger)),
                x_start=self.x_start + first * self.x_step,
                x_step=self.x_step * stagger,
                y_start=self.y_start + first * self.y_step,
                y_step=self.y_step * stagger,
                w_start=self.w_start + first * self.w_step,
                w_step=self.w_step * stagger,
            )


@attrs.frozen(eq=False)
class LocalPlan:
    """The blocks of a layer.

    Attributes:
        blocks: every weight is in exactly one.
        disjoint_blocks: the same, none with overlapping inputs.
        input_rows: pixels * in_channels.
        output_rows: positions * out_channels.
        weight_shape: of the layer's weight.
    """

    blocks: tuple[Block, ...]
    disjoint_blocks: tuple[Block, ...]
    input_rows: int
    output_rows: int
    weight_shape: tuple[int, ...]


@attrs.frozen
class Strip:
    """Consecutive positions of one axis that read equally many pixels, each the pixels of the last one moved by ``step``.

    Attributes:
        position: the first.
        count: how many.
        pair: index of the first position's first pair; the next position's is ``len(pixels)`` further.
        pixels: that the first position reads, ascending.
        step: pixels from one position to the next, not negative.
    """

    position: int
    count: int
    pair: int
    pixels: tuple[int, ...]
    step: int

    def runs(self, longest: int) -> Iterator[tuple[int, int]]:
        """Stretches of consecutive pixels: (index of the first, how many, at most ``longest``)."""
        start = 0
        for k in range(1, len(self.pixels) + 1):
            if k == len(self.pixels) or self.pixels[k] != self.pixels[k - 1] + 1 or k - start == longest:
                yield start, k - start
                start = k


def strips(axis: Axis) -> list[Strip]:
    """The positions of an axis that read anything, in as few strips as there are."""
    reads: list[list[int]] = [[] for _ in range(axis.positions)]
    for pair in incidence(LCN, axis).pair.tolist():
        reads[pair // axis.size].append(pair % axis.size)
    found: list[Strip] = []
    pair = 0
    for position, pixels in enumerate(reads):
        if pixels:
            longer = _extended(found[-1], position, pixels) if found else None
            if longer is None:
                found.append(Strip(position, 1, pair, tuple(pixels), 0))
            else:
                found[-1] = longer
        pair += len(pixels)
    return found


def _extended(strip: Strip, position: int, pixels: list[int]) -> Strip | None:
    """The strip with one position more, if that position fits."""
    if position != strip.position + strip.count or len(pixels) != len(strip.pixels):
        return None
    moved, rest = divmod(pixels[0] - strip.pixels[0], strip.count)
    if rest or moved < 0 or (strip.count > 1 and moved != strip.step):
        return None
    if any(pixel - first != moved * strip.count for pixel, first in zip(pixels, strip.pixels, strict=True)):
        return None
    return attrs.evolve(strip, count=strip.count + 1, step=moved)


@functools.lru_cache(maxsize=256)
def local_plan(geometry: ConvGeometry) -> LocalPlan:
    """The plan of a locally connected layer."""
    groups, outputs, inputs = geometry.channel_block
    shape = (*label_counts(LCN, geometry), groups, inputs, outputs)
    blocks = tuple(_blocks(geometry, shape[len(geometry.axes) - 1]))
    return LocalPlan(
        blocks=blocks,
        disjoint_blocks=tuple(itertools.chain.from_iterable(block.disjoint() for block in blocks)),
        input_rows=geometry.pixels * geometry.in_channels,
        output_rows=geometry.positions * geometry.out_channels,
        weight_shape=shape,
    )


def _blocks(geometry: ConvGeometry, row_pairs: int) -> Iterator[Block]:
    """The blocks, all those that add to the same outputs close together."""
    *leading, last = geometry.axes
    groups, outputs, inputs = geometry.channel_block
    pair_weights = groups * inputs * outputs
    for row, (position, pixel) in enumerate(_leading_pairs(leading)):
        for strip in strips(last):
            reach = len(strip.pixels)
            for tap, taps in strip.runs(reach if groups == 1 else 1):
                whole = Block(
                    count=strip.count,
                    rows=taps * inputs,
                    outputs=outputs,
                    x_start=(pixel * last.size + strip.pixels[tap]) * geometry.in_channels,
                    x_step=strip.step * geometry.in_channels,
                    y_start=(position * last.positions + strip.position) * geometry.out_channels,
                    y_step=geometry.out_channels,
                    w_start=(row * row_pairs + strip.pair + tap) * pair_weights,
                    w_step=reach * pair_weights,
                )
                yield from _by_group(whole, groups, inputs) if groups > 1 else [whole]


def _by_group(block: Block, groups: int, inputs: int) -> Iterator[Block]:
    """The first group's block repeated for every group, batched over the groups or over the positions, whichever are more."""
    outputs = block.outputs
    if groups < block.count:
        for group in range(groups):
            yield attrs.evolve(
                block,
                x_start=block.x_start + group * inputs,
                y_start=block.y_start + group * outputs,
                w_start=block.w_start + group * inputs * outputs,
            )
        return
    for k in range(block.count):
        yield attrs.evolve(
            block,
            count=groups,
            x_start=block.x_start + k * block.x_step,
            x_step=inputs,
            y_start=block.y_start + k * block.y_step,
            y_step=outputs,
            w_start=block.w_start + k * block.w_step,
            w_step=inputs * outputs,
        )


def _leading_pairs(axes: list[Axis]) -> Iterator[tuple[int, int]]:
    """(flat position, flat pixel) of every combination of pairs of some axes, in the order of the weights."""
    per_axis = [[divmod(pair, axis.size) for pair in incidence(LCN, axis).pair.tolist()] for axis in axes]
    position_strides = [math.prod(axis.positions for axis in axes[k + 1 :]) for k in range(len(axes))]
    pixel_strides = [math.prod(axis.size for axis in axes[k + 1 :]) for k in range(len(axes))]
    for combination in itertools.product(*per_axis):
        position = sum(p * stride for (p, _), stride in zip(combination, position_strides, strict=True))
        pixel = sum(p * stride for (_, p), stride in zip(combination, pixel_strides, strict=True))
        yield position, pixel
