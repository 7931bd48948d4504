"""A convolution whose positions do not share weights."""

from __future__ import annotations

from anarch_core.lattice import LCN, AbstractFamily, ConvGeometry, label_counts
from anarch_core.layers import LocallyConnectedLayer
from anarch_core.relaxation import AbstractLatticeRelaxation


class LocallyConnectedRelaxation(AbstractLatticeRelaxation):
    """conv or tiled -> lcn."""

    layer_class = LocallyConnectedLayer

    @property
    def family(self) -> AbstractFamily:
        return LCN

    def weights(self, geometry: ConvGeometry) -> int:
        groups, outputs, inputs = geometry.channel_block
        pairs = 1
        for count in label_counts(LCN, geometry):
            pairs *= count
        return pairs * groups * outputs * inputs

    def biases(self, geometry: ConvGeometry) -> int:
        return geometry.out_channels * geometry.positions

    def flops(self, geometry: ConvGeometry) -> int:
        return 2 * self.weights(geometry)
