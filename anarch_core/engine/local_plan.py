"""Which batched matrix products a locally connected layer is the sum of."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import attrs

from anarch_core.geometry import Axis, ConvGeometry
from anarch_core.lattice import LCN, incidence, label_counts

CHUNK_ROWS = 1024  # rows of inputs or outputs that one block touches, so that they stay in a core's cache for batches of some hundreds


@attrs.frozen
class Part:
    """The rows that a block takes from one stretch of consecutive pixels.

    Attributes:
        rows: input rows of one item.
        x_start: first input row of the first item.
        w_start: first weight; an item's weights are a contiguous [rows, outputs].
    """

    rows: int
    x_start: int
    w_start: int


@attrs.frozen
class Block:
    """One batched product: each item takes the input rows of all parts to ``outputs`` rows of the outputs.

    Rows of inputs and outputs are numbered over [pixels * in_channels] and [positions * out_channels]; a row holds the batch. Weights are
    numbered one by one.

    Attributes:
        parts: with a single one the product is taken on views; the rows of several are gathered first.
        count: items.
        outputs: output rows of an item.
        x_step: input rows from one item to the next; items overlap where it is smaller than the rows of a part.
        y_start: first output row of the first item.
        y_step: output rows from one item to the next.
        w_step: weights from one item to the next.
        first: no earlier block adds to these outputs.
    """

    parts: tuple[Part, ...]
    count: int
    outputs: int
    x_step: int
    y_start: int
    y_step: int
    w_step: int
    first: bool = True

    def stagger(self, part: Part) -> int:
        """Items apart from which the part's input rows no longer overlap."""
        return self.count if self.x_step == 0 else min(self.count, -(-part.rows // self.x_step))


@attrs.frozen(eq=False)
class LocalPlan:
    """The blocks of a layer.

    Attributes:
        blocks: every weight is in exactly one.
        input_shape: [in_channels, *pixels].
        output_shape: [out_channels, *positions].
        weight_shape: of the layer's weight.
        complete: every output row is in some block.
    """

    blocks: tuple[Block, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    complete: bool


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
        input_shape=(geometry.in_channels, *geometry.input_size),
        output_shape=(geometry.out_channels, *geometry.output_size),
        weight_shape=shape,
        complete=sum(block.count * block.outputs for block in blocks if block.first) == geometry.positions * geometry.out_channels,
    )


def _blocks(geometry: ConvGeometry, row_pairs: int) -> Iterator[Block]:
    """The blocks, all those that add to the same outputs one after the other."""
    *leading, last = geometry.axes
    groups, outputs, inputs = geometry.channel_block
    pair_weights = groups * inputs * outputs
    for position, rows in _leading_reads(leading):
        for strip in strips(last) if rows else []:
            parts = tuple(
                Part(
                    rows=taps * inputs,
                    x_start=(pixel * last.size + strip.pixels[tap]) * geometry.in_channels,
                    w_start=(row * row_pairs + strip.pair + tap) * pair_weights,
                )
                for row, pixel in rows
                for tap, taps in strip.runs(len(strip.pixels) if groups == 1 else 1)
            )
            whole = Block(
                parts=parts,
                count=strip.count,
                outputs=outputs,
                x_step=strip.step * geometry.in_channels,
                y_start=(position * last.positions + strip.position) * geometry.out_channels,
                y_step=geometry.out_channels,
                w_step=len(strip.pixels) * pair_weights,
            )
            for block in _by_group(whole, groups, inputs):
                yield from _chunks(block)


def _by_group(block: Block, groups: int, inputs: int) -> Iterator[Block]:
    """The first group's block repeated for every group, batched over the groups or over the positions, whichever are more."""
    outputs = block.outputs
    if groups < block.count:
        for group in range(groups):
            yield _moved(block, group * inputs, group * outputs, group * inputs * outputs)
        return
    for k in range(block.count):
        item = _moved(block, k * block.x_step, k * block.y_step, k * block.w_step)
        yield attrs.evolve(item, count=groups, x_step=inputs, y_step=outputs, w_step=inputs * outputs)


def _chunks(block: Block) -> Iterator[Block]:
    """A block in pieces that fit a cache.

    Where a part has fewer rows than there are outputs, gathering the inputs of all parts costs less than adding to the outputs part by
    part; and a product over a single row is hardly one.
    """
    gather = max(part.rows for part in block.parts) < max(block.outputs, 2)
    rows = sum(part.rows for part in block.parts) if gather else block.outputs
    length = max(1, CHUNK_ROWS // rows)
    for k in range(0, block.count, length):
        piece = attrs.evolve(_moved(block, k * block.x_step, k * block.y_step, k * block.w_step), count=min(length, block.count - k))
        if gather:
            yield piece
        else:
            yield from (attrs.evolve(piece, parts=(part,), first=number == 0) for number, part in enumerate(piece.parts))


def _moved(block: Block, x: int, y: int, w: int) -> Block:
    """A block that starts further on, by so many input rows, output rows and weights."""
    parts = tuple(Part(part.rows, part.x_start + x, part.w_start + w) for part in block.parts)
    return attrs.evolve(block, parts=parts, y_start=block.y_start + y)


def _leading_reads(axes: list[Axis]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Every position of some axes together, flat, with what it reads: (flat index of the pair, flat pixel)."""
    per_axis = []
    for axis in axes:
        reads: list[list[tuple[int, int]]] = [[] for _ in range(axis.positions)]
        for index, pair in enumerate(incidence(LCN, axis).pair.tolist()):
            reads[pair // axis.size].append((index, pair % axis.size))
        per_axis.append(reads)
    pairs = [incidence(LCN, axis).labels for axis in axes]
    for position, read in enumerate(itertools.product(*per_axis)):
        flat = []
        for combination in itertools.product(*read):
            row = pixel = 0
            for (index, where), axis, count in zip(combination, axes, pairs, strict=True):
                row, pixel = row * count + index, pixel * axis.size + where
            flat.append((row, pixel))
        yield position, flat
