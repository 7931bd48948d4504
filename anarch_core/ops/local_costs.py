"""About how long each set of kernels takes for the three products of a locally connected layer on a CPU, from its sizes.

The constants are seconds, fitted to 274 layers of one to three axes, up to 32 groups and batches of 2 to 250, on one core with AVX2. What
is chosen by them took 1.05 times as long as the fastest set, in the geometric mean.
"""

from __future__ import annotations

import math

from anarch_core.lattice.families import LCN, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.batch_last import back_layouts, outward_layout
from anarch_core.ops.depthwise import LARGEST
from anarch_core.ops.strips import Strips


def strips_seconds(strips: Strips, geometry: ConvGeometry, batch: int) -> float:
    """Of :mod:`anarch_core.ops.strips`: calls, tiles, and for each sample multiply-adds, stretches of pixels and inputs met."""
    calls = parts = 0
    for tile in strips.tiles:
        calls += 2 * len(tile.terms) + sum(tile.stagger(part) for term in tile.terms for part in term)
        parts += tile.count * sum(map(len, tile.terms))
    outputs = geometry.channel_block[1]
    met = _weights(geometry) / outputs
    if geometry.groups == 1:
        return 2.1e-5 * calls + 9.7e-5 * len(strips.tiles) + batch * (5.9e-8 * parts + (2.7e-9 + 1.4e-10 * outputs) * met)
    return 1.7e-5 * calls + 2.5e-4 * len(strips.tiles) + batch * (3.5e-8 * parts + (1.1e-8 + 1.1e-10 * outputs) * met)


def gathers_seconds(geometry: ConvGeometry, batch: int) -> float:
    """Of :mod:`anarch_core.ops.gathers`: numbers gathered, weights and blocks of them."""
    _, outputs, inputs = geometry.channel_block
    blocks = _blocks(geometry)
    return 5.1e-4 + blocks * (8.3e-9 * (inputs + outputs) * batch + 7.8e-9 * inputs * outputs + 8.9e-8)


def batch_last_seconds(geometry: ConvGeometry, batch: int) -> float:
    """Of :mod:`anarch_core.ops.batch_last`: products, activations with their copies, weights with those that fill room, and items."""
    outwards = outward_layout(geometry)
    layouts = [outwards, outwards, *back_layouts(geometry).values()]  # a weight gradient reads what outputs read
    laid_out = sum(layout.items * layout.step for layout in layouts)
    weights = sum(layout.items * layout.rows * layout.outputs for layout in layouts)
    items = sum(layout.items for layout in layouts)
    each = 3.5e-9 * (laid_out + 2 * _activations(geometry)) + 2.2e-11 * weights
    return 3.2e-4 * len(layouts) + 4.6e-9 * weights + 2.1e-7 * items + batch * each


def depthwise_seconds(geometry: ConvGeometry, batch: int) -> float:
    """Of :mod:`anarch_core.ops.depthwise`: calls and multiply-adds."""
    taps = math.prod(window.span for window in outward_layout(geometry).windows)
    tiles = max(1.0, _activations(geometry) * batch / (2 * LARGEST))
    return 6.4e-4 + 1.5e-4 * taps * geometry.channel_block[1] * tiles + 2.2e-9 * _weights(geometry) * batch


def _blocks(geometry: ConvGeometry) -> int:
    return math.prod(label_counts(LCN, geometry)) * geometry.groups


def _weights(geometry: ConvGeometry) -> int:
    _, outputs, inputs = geometry.channel_block
    return _blocks(geometry) * inputs * outputs


def _activations(geometry: ConvGeometry) -> int:
    return geometry.pixels * geometry.in_channels + geometry.positions * geometry.out_channels
