"""A copy for each call of a module, and for each place of a parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.network import copied
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site
from anarch_plugins.relaxations.untie.layer import TakingTurns, UntiedLayer
from anarch_plugins.relaxations.untie.per_call import PerCall
from anarch_plugins.relaxations.untie.state import changed_by_a_call
from anarch_plugins.relaxations.untie.ties import cut, places, tied_here


class Untying(AbstractConstraintRelaxation):
    """One module for all calls -> one for each; one parameter in several places -> one in each."""

    name: ClassVar[str] = "untie"
    targets: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    sized: ClassVar[bool] = False

    def understands(self, module: nn.Module) -> bool:
        """Any: copies have its hooks and parametrizations."""
        return True

    def idle(self, site: Site) -> str | None:
        if not any(True for _ in site.module.parameters()):
            return "it has no parameters"
        if isinstance(site.module, ConstrainedLayer) and isinstance(site.module.free, PerCall):
            return "each of its calls has weights of its own"
        if site.calls <= 1 and not tied_here(site.module):
            return "it is called once, and its parameters are in one place each"
        return None

    def refusal(self, site: Site) -> str | None:
        changed = changed_by_a_call(site) if site.calls > 1 else []
        if changed:
            names = ", ".join(changed)
            return f"a call in training mode changes its buffer {names}, which the next call reads; copies would not see that of each other"
        return super().refusal(site)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        names = places(module)
        if site.calls > 1:
            free: nn.Module = PerCall([cut(copied(module), names) for _ in range(site.calls)])
            prefixes = [f"copies.{number}." for number in range(site.calls)]
        else:
            free, prefixes = cut(copied(module), names), [""]
        variances = default_variances(module)
        links = []
        for name, parameter in module.named_parameters():
            heirs = [f"{prefix}{place}" for prefix in prefixes for place in names[name]]
            if len(heirs) > 1:
                links.append(Link(parent=name, free=heirs, constraint=equal(len(heirs), parameter.shape), variance=variances.get(name)))
        return Loosened(free=free, links=links, layer_class=TakingTurns if site.calls > 1 else UntiedLayer)

    def flops(self, free: nn.Module, site: Site) -> int:
        return site.calls * super().flops(free, site)


def equal(copies: int, shape: torch.Size) -> Constraint:
    """All copies are one: W [copies, *shape] of θ [*shape]."""
    same = Incidence.of(np.zeros(copies, dtype=np.int64), 1)
    return Constraint((copies, *shape), tuple(shape), [same, Incidence.identity(math.prod(shape))])


def default_variances(module: nn.Module) -> Mapping[str, float]:
    """Variance of the entries of parameters at PyTorch's default initialisation, where they are independent and of mean zero."""
    found: dict[str, float] = {}
    for path, part in module.named_modules():
        weight = part._parameters.get("weight")
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd) and weight is not None:
            fans = {"weight": weight[0].numel()}
        elif isinstance(part, nn.RNNCellBase):
            fans = dict.fromkeys(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), part.hidden_size)
        else:
            continue
        found |= {f"{path}.{name}" if path else name: 1 / (3 * fan) for name, fan in fans.items()}
    return found
