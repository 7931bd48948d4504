"""Relaxed layers that several processes hold together: each lifts its own output channels, and none makes the whole."""

from __future__ import annotations

from typing import cast

import attrs

from anarch_core.lattice.geometry import Convolution
from anarch_core.layers.base import RelaxedLayer
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.layers.sharded import ShardedLayer, narrow_convolution, sharded
from anarch_core.plugin.blame import answering
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.lattice import AbstractLatticeRelaxation, is_convolution, site_geometry
from anarch_core.sharding.shards import Shards


def why_not_shared_out(relaxation: AbstractRelaxation, site: Site, shards: Shards) -> str | None:
    """Why a layer cannot be shared out among processes, as the end of a sentence; None if it can.

    Args:
        relaxation: that accepts the layer.
        site: the layer.
        shards: the processes.
    """
    if not isinstance(relaxation, AbstractLatticeRelaxation):
        return f"its relaxation, {type(relaxation).__name__}, is none of the lattice, and may mix output channels; train it in one process"
    if isinstance(site.module, ShardedLayer):
        return None
    if not is_convolution(site.module):
        return f"it is a {type(site.module).__name__}, and only convolutions are shared out among processes"
    conv = cast(Convolution, site.module)
    if conv.groups > 1:
        return f"it has {conv.groups} groups, and only convolutions of one group are shared out among processes"
    if conv.out_channels < shards.size:
        return f"it has {conv.out_channels} output channels, fewer than the {shards.size} processes"
    return None


def narrowed(site: Site, shards: Shards) -> Site:
    """The layer with this process's output channels, a view of it; one that is shared out already is."""
    if isinstance(site.module, ShardedLayer):
        return site
    conv = cast(Convolution, site.module)
    return attrs.evolve(site, module=narrow_convolution(conv, shards.stretch(conv.out_channels)))


def lifted(relaxation: AbstractRelaxation, site: Site, shards: Shards | None) -> RelaxedLayer:
    """What a relaxation makes of a layer; this process's part of it, where processes hold it together."""
    if shards is None:
        return answering(relaxation.lift, RelaxedLayer)(site)
    whole = site.module.whole if isinstance(site.module, ShardedLayer) else site_geometry(site)
    part = answering(relaxation.lift, LatticeLayer)(narrowed(site, shards))
    return sharded(cast(LatticeLayer, part), whole, shards)
