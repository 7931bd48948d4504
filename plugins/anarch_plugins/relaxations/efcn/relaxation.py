"""A convolution as a dense matrix from all input pixels to all output positions."""

from __future__ import annotations

from anarch_core.lattice import EFCN, AbstractFamily
from anarch_core.layers import FullyConnectedLayer
from anarch_core.relaxation import AbstractLatticeRelaxation


class FullyConnectedRelaxation(AbstractLatticeRelaxation):
    """conv, lcn, shared or tiled -> efcn."""

    layer_class = FullyConnectedLayer

    @property
    def family(self) -> AbstractFamily:
        return EFCN
