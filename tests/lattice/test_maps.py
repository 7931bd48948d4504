"""Which family of weights lies inside which."""

from __future__ import annotations

from torch import nn

from anarch_core.lattice.families import CONV, EFCN, LCN
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.lattice.maps import contains
from anarch_core.plugin.registry import get_registry


def test_containment():
    geometry = ConvGeometry.of(nn.Conv2d(1, 1, 3, padding=1), (6, 6))
    create = get_registry().create
    tiled2, tiled3 = (create("relaxation", "tiled", {"period": period}).family for period in (2, 3))
    shared = create("relaxation", "shared").family
    for inner, outer in [(CONV, LCN), (LCN, EFCN), (CONV, shared), (shared, EFCN), (CONV, tiled2), (tiled2, LCN)]:
        assert contains(outer, inner, geometry)
        assert not contains(inner, outer, geometry)
    assert not contains(tiled3, tiled2, geometry)
    assert not contains(LCN, shared, geometry)
