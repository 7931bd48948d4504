"""The products of a locally connected layer in which every input channel is a group of its own, as elementwise products; for a CPU.

There is nothing to multiply matrices with: an output is a sum over taps only. With the channels last, all channels of a strip of
positions are multiplied by the weights of one tap in one call, on views of the activations.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs
import torch

from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.ops.bilinear import accumulate
from anarch_core.ops.joins import Joins
from anarch_core.ops.strip_plan import fitting, local_joins, local_shapes, whole_tiles
from anarch_core.ops.strips import Part, Tile


@attrs.frozen(eq=False)
class Depthwise:
    """The three products of a layer.

    Attributes:
        tiles: of all groups together; a tile's parts hold one tap each.
        complete: every output is in some tile.
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: [*pairs of each axis, groups, 1, outputs of a group].
        joins: which weights join what.
    """

    tiles: tuple[Tile, ...]
    complete: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs] and a contiguous weight."""
        if not self.complete:
            y.zero_()
        exact = torch.promote_types(y.dtype, torch.float32)
        for tile in self.tiles:
            target = self._outputs(y, tile)
            total = target.new_zeros(target.shape, dtype=exact)
            for part in _taps(tile):
                total.addcmul_(self._inputs(x, tile, part).to(exact), self._weights(weight, tile, part).to(exact))
            target.copy_(total)

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs] and a contiguous weight."""
        gx.zero_()
        for tile in self.tiles:
            left = self._outputs(grad, tile).to(gx.dtype)
            for part in _taps(tile):
                into, right = self._inputs(gx, tile, part), self._weights(weight, tile, part).to(gx.dtype)
                if right.shape[-1] == 1:
                    into.addcmul_(left, right)
                else:
                    into.add_((left * right).sum(-1, keepdim=True))

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
        for tile in self.tiles:
            right = self._outputs(grad, tile)
            for part in _taps(tile):
                gradient = (self._inputs(x, tile, part) * right).sum(0)
                accumulate(self._weights(out, tile, part), gradient, beta=beta, alpha=alpha)

    def _inputs(self, x: torch.Tensor, tile: Tile, part: Part) -> torch.Tensor:
        """[batch, positions, groups, 1]."""
        size = (len(x), tile.count, self.weight_shape[-3], 1)
        return x.as_strided(size, (x.stride(0), tile.x_step, 1, 1), x.storage_offset() + part.x_start)

    def _outputs(self, y: torch.Tensor, tile: Tile) -> torch.Tensor:
        """[batch, positions, groups, outputs of a group]."""
        size = (len(y), tile.count, self.weight_shape[-3], tile.outputs)
        return y.as_strided(size, (y.stride(0), tile.y_step, tile.outputs, 1), y.storage_offset() + tile.y_start)

    def _weights(self, weight: torch.Tensor, tile: Tile, part: Part) -> torch.Tensor:
        """[positions, groups, outputs of a group]."""
        size = (tile.count, self.weight_shape[-3], tile.outputs)
        return weight.as_strided(size, (tile.w_step, tile.outputs, 1), weight.storage_offset() + part.w_start)


def _taps(tile: Tile) -> Iterator[Part]:
    for term in tile.terms:
        yield from term


@functools.lru_cache(maxsize=256)
def depthwise_plan(geometry: ConvGeometry) -> Depthwise:
    """The products of a locally connected layer whose groups have one input channel each."""
    tiles = tuple(
        piece
        for tile in whole_tiles(geometry)
        # Positions that read the same pixels, and so would write to the same place in an input gradient, are taken one by one.
        for piece in (fitting(tile, geometry.out_channels) if tile.x_step else (tile.moved(k, 1) for k in range(tile.count)))
    )
    positions = sum(tile.count for tile in tiles)
    return Depthwise(tiles, positions == geometry.positions, *local_shapes(geometry), local_joins(geometry))
