"""A dense layer between feature maps."""

from __future__ import annotations

import torch

from anarch_core.lattice.drift import column_norms2, receptive_fields
from anarch_core.lattice.families import AbstractFamily
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.lattice_layer import LatticeLayer, inverse_root
from anarch_core.ops.full_product import FullProduct
from anarch_core.ops.fused import linear
from anarch_core.ops.piece import Piece


class FullyConnectedLayer(LatticeLayer):
    """A dense layer between feature maps; ``weight`` and ``bias`` are those of an ``nn.Linear`` between the flattened maps.

    Padding is folded into the matrix: there is no column for a padded zero.

    Attributes:
        weight: [out_channels * positions, in_channels * pixels].
        bias: [out_channels * positions].
    """

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        g = geometry
        return g.out_channels * g.positions, g.in_channels * g.pixels

    @classmethod
    def bias_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return (geometry.out_channels * geometry.positions,)

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        g, d = self.geometry, len(self.geometry.axes)
        groups, outputs, inputs = g.channel_block
        blocks = tensor.view(groups, outputs, *g.output_size, groups, inputs, *g.input_size)
        own = blocks.diagonal(dim1=0, dim2=2 + d)  # [outputs, *positions, inputs, *pixels, groups]: a group's inputs with its own outputs
        pairs = [dim for axis in range(d) for dim in (1 + axis, 2 + d + axis)]
        return own.permute(*pairs, 2 + 2 * d, 0, 1 + d)

    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(self.geometry.out_channels, *self.geometry.output_size).movedim(0, -1)

    def weight_bound(self) -> torch.Tensor:
        return inverse_root(self.geometry.in_channels * self.geometry.pixels)

    def bias_bound(self) -> torch.Tensor:
        return self.weight_bound()

    @torch.no_grad()
    def off_local_norm2(self) -> float:
        """As in the base class; by rows, so that nothing of the weight's size is made."""
        g = self.geometry
        groups, _, inputs = g.channel_block
        fields = receptive_fields(g).to(self.weight.device)
        total = 0.0
        for group, rows in enumerate(self.weight.detach().view(groups, g.out_channels // groups, -1)):
            squares = column_norms2(rows).view(g.positions, groups, inputs, g.pixels).sum(2)
            squares[:, group].masked_fill_(fields, 0)
            total += float(squares.sum())
        return total

    def piece(self) -> Piece:
        g = self.geometry
        return FullProduct(self.weight, self.bias, (g.in_channels, *g.input_size), (g.out_channels, *g.output_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size]."""
        x, single = self.batched(x)
        y = linear(x.flatten(1), self.weight, self.bias)
        y = y.reshape(y.shape[0], self.geometry.out_channels, *self.geometry.output_size)
        return y.squeeze(0) if single else y
