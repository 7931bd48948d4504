"""The products of a locally connected layer on views of its activations, with nothing unfolded; for a CPU.

Activations are channels last, so what one position reads of consecutive pixels of the last axis is contiguous for every sample: a
batch × (taps · channels) block of the activations as they stand. Its neighbour's block lies a fixed distance further on. A strip of
positions is therefore one batched matrix product on overlapping views, and the layer is a sum of such products, one per strip and row
of the kernel.
"""

from __future__ import annotations

import functools

import attrs
import torch

from anarch_core.ops.bilinear import accumulate, add_product
from anarch_core.ops.joins import Joins


@attrs.frozen
class Part:
    """What the items of a tile read of one stretch of consecutive pixels.

    Attributes:
        rows: numbers that one item reads of a sample.
        x_start: where the first item starts.
        w_start: first weight; an item's weights are a contiguous [rows, outputs].
    """

    rows: int
    x_start: int
    w_start: int


@attrs.frozen
class Tile:
    """Some positions of one strip, whose outputs are the sum of one batched product for each term.

    Inputs of a sample are numbered over [pixels * in_channels], outputs over [positions * out_channels], weights one by one.

    Attributes:
        terms: a term of a single part is a product of views; the inputs of several parts are gathered first.
        count: items: positions, or groups of one position.
        outputs: of an item.
        x_step: inputs from one item to the next; items overlap where it is smaller than the rows of a part.
        y_start: first output of the first item.
        y_step: outputs from one item to the next.
        w_step: weights from one item to the next.
    """

    terms: tuple[tuple[Part, ...], ...]
    count: int
    outputs: int
    x_step: int
    y_start: int
    y_step: int
    w_step: int

    def moved(self, items: int, count: int) -> Tile:
        """The tile that starts so many items further on and has so many."""
        return attrs.evolve(self.shifted(items * self.x_step, items * self.y_step, items * self.w_step), count=count)

    def shifted(self, x: int, y: int, w: int) -> Tile:
        """The same tile so many inputs, outputs and weights further on."""
        terms = tuple(tuple(Part(part.rows, part.x_start + x, part.w_start + w) for part in term) for term in self.terms)
        return attrs.evolve(self, terms=terms, y_start=self.y_start + y)

    def stagger(self, part: Part) -> int:
        """Items apart from which the part's inputs no longer overlap."""
        return self.count if self.x_step == 0 else min(self.count, -(-part.rows // self.x_step))

    def inputs(self, x: torch.Tensor, part: Part) -> torch.Tensor:
        """[count, batch, rows] of [batch, inputs]; overlapping where positions share pixels."""
        return x.as_strided((self.count, x.shape[0], part.rows), (self.x_step, x.stride(0), 1), x.storage_offset() + part.x_start)

    def rows(self, x: torch.Tensor, part: Part) -> torch.Tensor:
        """[count, rows, batch] of [inputs, batch]."""
        batch = x.shape[1]
        return x.as_strided((self.count, part.rows, batch), (self.x_step * batch, batch, 1), part.x_start * batch)

    def out(self, y: torch.Tensor) -> torch.Tensor:
        """[count, batch, outputs] of [batch, outputs of all positions]."""
        size = (self.count, y.shape[0], self.outputs)
        return y.as_strided(size, (self.y_step, y.stride(0), 1), y.storage_offset() + self.y_start)

    def weights(self, weight: torch.Tensor, part: Part) -> torch.Tensor:
        """[count, rows, outputs]."""
        size = (self.count, part.rows, self.outputs)
        return weight.as_strided(size, (self.w_step, self.outputs, 1), weight.storage_offset() + part.w_start)


@attrs.frozen(eq=False)
class Strips:
    """The three products of a layer.

    Attributes:
        tiles: every weight is in exactly one part of one of them.
        complete: every output is in some tile.
        input_shape: [channels, *pixels].
        output_shape: [channels, *positions].
        weight_shape: of the weight.
        joins: which weights join what.
    """

    tiles: tuple[Tile, ...]
    complete: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    joins: Joins

    @functools.cached_property
    def terms(self) -> int:
        """Products that one pass takes."""
        return sum(len(tile.terms) for tile in self.tiles)

    def write_outputs(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
        """Write y [batch, outputs] for x [batch, inputs] and a contiguous weight."""
        if not self.complete:
            y.zero_()
        exact = torch.promote_types(y.dtype, torch.float32)
        for tile in self.tiles:
            total = None
            for term in tile.terms:
                left = _gathered([tile.inputs(x, part) for part in term], 2)
                right = _gathered([tile.weights(weight, part) for part in term], 1)
                total = torch.bmm(left, right).to(exact) if total is None else add_product(total, left, right)
            if total is not None:
                tile.out(y).copy_(total)

    def write_input_gradient(self, gx: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> None:
        """Write gx [batch, inputs] for grad [batch, outputs] and a contiguous weight."""
        gx.zero_()
        for tile in self.tiles:
            left = tile.out(grad).contiguous()
            for term in tile.terms:
                if len(term) == 1:
                    read, right, stagger = tile.inputs(gx, term[0]), tile.weights(weight, term[0]), tile.stagger(term[0])
                    for k in range(stagger):  # neighbours overlap, and no call may write to one place twice
                        add_product(read[k::stagger], left[k::stagger], right[k::stagger].transpose(1, 2))
                    continue
                product = torch.bmm(left, _gathered([tile.weights(weight, part) for part in term], 1).transpose(1, 2))
                for part, values in zip(term, torch.split(product, [part.rows for part in term], 2), strict=True):
                    read, stagger = tile.inputs(gx, part), tile.stagger(part)
                    for k in range(stagger):
                        read[k::stagger].add_(values[k::stagger])

    def accumulate_weights(self, out: torch.Tensor, x: torch.Tensor, grad: torch.Tensor, *, beta: float, alpha: float) -> None:
        """``out = beta * out + alpha * gradient``, weight by weight once; what ``out`` holds does not matter where ``beta`` is 0."""
        x = x.t().contiguous()  # a product over the samples is half as slow again where they are far apart
        for tile in self.tiles:
            right = tile.out(grad).contiguous()
            for term in tile.terms:
                if len(term) == 1:
                    tile.weights(out, term[0]).baddbmm_(tile.rows(x, term[0]), right, beta=beta, alpha=alpha)
                    continue
                product = torch.bmm(_gathered([tile.rows(x, part) for part in term], 1), right)
                for part, values in zip(term, torch.split(product, [part.rows for part in term], 1), strict=True):
                    accumulate(tile.weights(out, part), values, beta=beta, alpha=alpha)


def _gathered(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Parts side by side; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
