"""Which tiles a locally connected layer is the sum of."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import attrs

from anarch_core.lattice.families import LCN, incidence, label_counts
from anarch_core.lattice.geometry import Axis, ConvGeometry
from anarch_core.ops.joins import Joins
from anarch_core.ops.strips import Part, Strips, Tile

TILE_ROWS = 1024  # numbers of a sample that a tile touches, so that they stay in a core's cache for batches of some hundreds


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


def local_shapes(geometry: ConvGeometry) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Of a locally connected layer: [channels, *pixels], [channels, *positions], [*pairs of each axis, groups, inputs, outputs]."""
    groups, outputs, inputs = geometry.channel_block
    weight = (*label_counts(LCN, geometry), groups, inputs, outputs)
    return (geometry.in_channels, *geometry.input_size), (geometry.out_channels, *geometry.output_size), weight


def local_joins(geometry: ConvGeometry) -> Joins:
    """Of a locally connected layer."""
    groups, outputs, inputs = geometry.channel_block
    return Joins(LCN, geometry.axes, (groups, inputs, outputs))


@functools.lru_cache(maxsize=256)
def strip_plan(geometry: ConvGeometry) -> Strips:
    """The products of a locally connected layer."""
    tiles = tuple(_tiles(geometry))
    outputs = sum(tile.count * tile.outputs for tile in tiles)
    return Strips(tiles, outputs == geometry.positions * geometry.out_channels, *local_shapes(geometry), local_joins(geometry))


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


def _tiles(geometry: ConvGeometry) -> Iterator[Tile]:
    groups, _, inputs = geometry.channel_block
    for whole in whole_tiles(geometry):
        for tile in _by_group(whole, groups, inputs):
            yield from fitting(tile, max(tile.outputs, *(sum(part.rows for part in term) if len(term) > 1 else 0 for term in tile.terms)))


def whole_tiles(geometry: ConvGeometry) -> Iterator[Tile]:
    """Whole strips, of the first group where there are several; in those every part is one tap."""
    *leading, last = geometry.axes
    groups, outputs, inputs = geometry.channel_block
    row_pairs = label_counts(LCN, geometry)[-1]
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
            yield Tile(
                terms=_terms(parts, outputs),
                count=strip.count,
                outputs=outputs,
                x_step=strip.step * geometry.in_channels,
                y_start=(position * last.positions + strip.position) * geometry.out_channels,
                y_step=geometry.out_channels,
                w_step=len(strip.pixels) * pair_weights,
            )


def _terms(parts: tuple[Part, ...], outputs: int) -> tuple[tuple[Part, ...], ...]:
    """One term for every part, or one for all of them.

    Where a part has fewer rows than there are outputs, gathering the inputs of all parts costs less than adding to the outputs part by
    part; and a product over a single row is hardly one.
    """
    return (parts,) if max(part.rows for part in parts) < max(outputs, 2) else tuple((part,) for part in parts)


def fitting(tile: Tile, rows: int) -> Iterator[Tile]:
    """A tile in pieces that fit a cache, where an item touches so many numbers of a sample."""
    length = max(1, TILE_ROWS // rows)
    yield from (tile.moved(k, min(length, tile.count - k)) for k in range(0, tile.count, length))


def _by_group(tile: Tile, groups: int, inputs: int) -> Iterator[Tile]:
    """The first group's tile repeated for every group, batched over the groups or over the positions, whichever are more."""
    outputs = tile.outputs
    if groups < tile.count:
        for group in range(groups):
            yield tile.shifted(group * inputs, group * outputs, group * inputs * outputs)
        return
    for k in range(tile.count):
        yield attrs.evolve(tile.moved(k, groups), x_step=inputs, y_step=outputs, w_step=inputs * outputs)


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
