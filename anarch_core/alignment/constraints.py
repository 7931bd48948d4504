"""Relaxed layers whose weight was under a constraint: channels are permuted where the constraint is the same afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anarch_core.alignment.following import Followed
from anarch_core.alignment.slots import Group, move
from anarch_core.layers.base import relaxed_layers
from anarch_core.layers.constrained import ConstrainedLayer, Link


def require_kept_constraints(model: nn.Module, followed: Followed, groups: Sequence[Group]) -> bool:
    """Pin the channels whose permutation leads out of what a layer was constrained to, as that of pruned units leads out of their mask.

    Else the permuted network would be projected to another one, and its distance from the constraint be another.

    Returns:
        whether there were any.
    """
    pinned = []
    layers = {path: layer for path, layer in relaxed_layers(model).items() if isinstance(layer, ConstrainedLayer)}
    for path, layer in layers.items():
        for place, link in enumerate(layer.links):
            names = [f"{path}.free.{name}" if path else f"free.{name}" for name in link.free]
            for group in groups:
                uses = [use for use in group.uses if set(use.slot.names) & set(names)]
                if uses and (layer._unseen(place) is not None or not _kept(link, names, group)):
                    pinned += [followed.channels.pin(use.slot.channels) for use in uses]
                    why = f"its {link.free[0]} was constrained ({layer.relaxation}), to other weights than a permuted one would be"
                    followed.pinned.setdefault(path, why)
    return any(pinned)


@torch.no_grad()
def _kept(link: Link, names: Sequence[str], group: Group) -> bool:
    """Whether a random weight that obeys the constraint does so when it is permuted at random."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(link.constraint.parent_shape, generator=generator, dtype=torch.float64)
    order = torch.randperm(group.size, generator=generator)
    weights = {name: part.clone() for name, part in zip(names, link.scattered(link.constraint.lift(theta)).values(), strict=True)}
    move(group, order, weights)
    moved = link.gathered({own: weights[name] for own, name in zip(link.free, names, strict=True)})
    return torch.allclose(link.constraint.lift(link.constraint.project(moved)), moved, rtol=0, atol=1e-9)
