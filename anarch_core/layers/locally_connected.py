"""A convolution whose positions do not share weights."""

from __future__ import annotations

import torch

from anarch_core.lattice.families import LCN, AbstractFamily, incidence, label_counts
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.layers.lattice_layer import LatticeLayer, fan_in, inverse_root
from anarch_core.ops.local import local_product
from anarch_core.ops.memory_format import is_channels_last
from anarch_core.ops.piece import Piece


class LocallyConnectedLayer(LatticeLayer):
    """A layer with one weight for every pair of an output position and a pixel of its receptive field, and none for padding.

    The pairs of each axis are listed position by position, so every position's weights lie together.

    Attributes:
        weight: [*pairs of each axis, groups, in_channels / groups, out_channels / groups].
        bias: [out_channels, *output size].
    """

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        groups, outputs, inputs = geometry.channel_block
        return *label_counts(LCN, geometry), groups, inputs, outputs

    @classmethod
    def bias_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return geometry.out_channels, *geometry.output_size

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(-1, -2)

    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.movedim(0, -1)

    def weight_bound(self) -> torch.Tensor:
        bound = inverse_root(fan_in(LCN, self.geometry))
        for dim, axis in enumerate(self.geometry.axes):
            position = torch.from_numpy(incidence(LCN, axis).pair // axis.size)
            bound = bound.index_select(dim, position)
        return bound[..., None, None, None]

    def bias_bound(self) -> torch.Tensor:
        return inverse_root(fan_in(LCN, self.geometry))

    def piece(self) -> Piece | None:
        return self.by_position()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size], in the memory format of the input."""
        x, single = self.batched(x)
        y = local_product(x, self.weight, self.geometry)
        if self.bias is not None:  # added with the channels last: several times faster than across the layouts
            bias = self.bias.movedim(0, -1).contiguous()
            y = (y.movedim(1, -1) + (bias if bias.dtype == y.dtype else bias.to(y.dtype))).movedim(-1, 1)
        if not is_channels_last(x):
            y = y.contiguous()
        return y.squeeze(0) if single else y
