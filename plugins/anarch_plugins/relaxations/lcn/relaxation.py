"""A convolution whose positions do not share weights."""

from __future__ import annotations

from anarch_core.lattice import LCN, AbstractFamily
from anarch_core.layers import LocallyConnectedLayer
from anarch_core.relaxation import AbstractLatticeRelaxation


class LocallyConnectedRelaxation(AbstractLatticeRelaxation):
    """conv or tiled -> lcn."""

    layer_class = LocallyConnectedLayer

    @property
    def family(self) -> AbstractFamily:
        return LCN
