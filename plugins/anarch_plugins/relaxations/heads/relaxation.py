"""Keys and values of its own for every head of an attention."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import Link
from anarch_core.network import copied
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site
from anarch_plugins.relaxations.heads.layout import GROUPS, KEYS, FusedProjections, Heads, SeparateProjections, heads_of
from anarch_plugins.relaxations.heads.options import HeadsOptions


class HeadsRelaxation(AbstractConstraintRelaxation):
    """Grouped-query or multi-query attention -> multi-head attention.

    Every head of queries, or every group of fewer, gets a copy of the keys and values that it shared.
    """

    name = "heads"
    targets: ClassVar[Any] = (SeparateProjections, FusedProjections)
    options: HeadsOptions

    def idle(self, site: Site) -> str | None:
        missing = [name for name in ("qkv_proj", "q_proj", "k_proj", "v_proj") if getattr(site.module, name, self) is None]
        if missing:  # as in EVA of timm, which makes all three in another way
            return f"it has no {missing[0]}"
        heads = heads_of(site.module)
        if isinstance(heads, str):
            return None
        if heads.keys == heads.queries:
            return "it has keys and values for every head of queries"
        return f"it has {heads.keys} heads of keys and values" if heads.keys >= self._wanted(heads) else None

    def refusal(self, site: Site) -> str | None:
        heads = heads_of(site.module)
        if isinstance(heads, str):
            return heads
        wanted = self._wanted(heads)
        if wanted % heads.keys or heads.queries % wanted:
            return (
                f"kv_heads = {wanted} is no multiple of its {heads.keys} heads of keys and values that divides its {heads.queries} heads "
                "of queries"
            )
        return super().refusal(site)

    def _wanted(self, heads: Heads) -> int:
        return self.options.kv_heads or heads.queries

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        heads = cast(Heads, heads_of(module))
        keys = self._wanted(heads)
        config = getattr(module, "config", None)
        free = copied(module, {id(config): config})  # a config is one for many modules
        links = [_widen(free, name, heads, keys) for name in heads.parts]
        _tell(free, keys, heads.queries // keys)
        return Loosened(free=free, links=links)


def _widen(free: nn.Module, name: str, heads: Heads, keys: int) -> Link:
    """Give a parameter as many heads of keys as there are to be, and say of which one each was a copy."""
    owner, labels, before = free.get_submodule(name.rpartition(".")[0]), heads.labels(name, keys), len(heads.labels(name, heads.keys))
    old = free.get_parameter(name)
    shape = (old.shape[0] // before * len(labels), *old.shape[1:])
    setattr(owner, name.rpartition(".")[2], nn.Parameter(old.new_empty(shape), requires_grad=old.requires_grad))
    variance = None
    if isinstance(owner, nn.Linear):
        owner.out_features, variance = shape[0], 1 / (3 * owner.in_features)
    elif getattr(owner, "normalized_shape", None) == tuple(old.shape):
        owner.normalized_shape = shape  # type: ignore[assignment]
    factors = [Incidence.of(labels, before), Incidence.identity(old.numel() // before)]
    return Link(parent=name, constraint=Constraint(shape, old.shape, factors), variance=variance)


def _tell(free: nn.Module, keys: int, groups: int) -> None:
    """Write the numbers of heads where the module has them; only one that asks its config for them gets a config of its own."""
    numbers = dict.fromkeys(KEYS, keys) | dict.fromkeys(GROUPS, groups)
    holder: Any = free
    if not any(isinstance(getattr(free, name, None), int) for name in numbers) and hasattr(free, "config"):
        holder = free.config = copy.copy(free.config)
    for name, number in numbers.items():
        if isinstance(getattr(holder, name, None), int):
            setattr(holder, name, number)
