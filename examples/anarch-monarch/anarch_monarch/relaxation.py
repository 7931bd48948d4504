"""The relaxations ``monarch`` and ``codebook``."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import Link, RelaxedLayer
from anarch_core.relaxation import (
    AbstractConstraintRelaxation,
    AbstractRelaxation,
    Cost,
    Loosened,
    Site,
    TensorRole,
    constrained_module,
)
from anarch_monarch.dense import MonarchDense
from anarch_monarch.layers import HashedLinear, MonarchLinear


class MonarchRelaxation(AbstractRelaxation):
    """Monarch -> dense."""

    targets = (MonarchLinear,)
    sized = False

    def idle(self, site: Site) -> str | None:
        """Blocks of one row or column have rank one whatever they hold."""
        layer = cast(MonarchLinear, site.module)
        if layer.blocks in (layer.in_features, layer.out_features):
            rows, columns = layer.out_features // layer.blocks, layer.in_features // layer.blocks
            return f"its blocks are {rows} x {columns}, and any matrix is a Monarch matrix"
        return None

    def refusal(self, site: Site) -> str | None:
        """Why a layer is not relaxed, as the end of a sentence."""
        if type(site.module) is not MonarchLinear:
            return f"it is a {type(site.module).__name__}, and may compute something else than a MonarchLinear"
        if site.module.left.is_complex():
            return "it is complex"
        return None

    def cost(self, site: Site) -> Cost:
        """Worked out from sizes; the layer holds the factors that it came from, too."""
        layer = cast(MonarchLinear, site.module)
        weights = layer.in_features * layer.out_features
        return Cost(
            parameters=weights + (layer.out_features if layer.bias is not None else 0),
            scratch_parameters=layer.left.numel() + layer.right.numel(),
            flops=2 * weights * math.prod(site.input_shape[:-1]),
            itemsize=layer.left.element_size(),
        )

    def lift(self, site: Site) -> RelaxedLayer:
        """The same function."""
        return MonarchDense(cast(MonarchLinear, site.module)).train(site.module.training)

    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        """That of both factors makes that of W, half each where both say the same; averages of weights start anew.

        The gradient G of a block uvᵀ of W gives its factors Gv and Gᵀu. The smallest G that does is what is carried.
        """
        if name == "bias":
            return {name: tensor.clone()}
        if role == "weight":
            return None
        return {"weight": cast(MonarchDense, layer).carried(name, tensor, square=role == "square")}


class CodebookRelaxation(AbstractConstraintRelaxation):
    """Entries with one code have one label, and are no longer equal afterwards."""

    name = "codebook"
    targets = (HashedLinear,)

    def idle(self, site: Site) -> str | None:
        """A code of one entry is a free weight."""
        code = cast(HashedLinear, constrained_module(site.module)).hash()
        return "no two of its entries have one code" if len(np.unique(code)) == code.size else None

    def refusal(self, site: Site) -> str | None:
        """Of subclasses too, which may compute something else."""
        kind = type(constrained_module(site.module))
        return super().refusal(site) or (
            None if kind is HashedLinear else f"it is a {kind.__name__}, and may compute something else than a HashedLinear"
        )

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        """An ordinary linear layer."""
        hashed, like = cast(HashedLinear, module), {"device": module.codebook.device, "dtype": module.codebook.dtype}
        free = nn.utils.skip_init(nn.Linear, hashed.in_features, hashed.out_features, hashed.bias is not None, **like)
        if hashed.bias is not None:
            free.bias = nn.Parameter(hashed.bias.detach().clone(), requires_grad=hashed.bias.requires_grad)
        constraint = Constraint(tuple(free.weight.shape), (hashed.codes,), [Incidence.of(hashed.hash().ravel(), hashed.codes)])
        return Loosened(
            free=free, links=[Link(parent="codebook", free=("weight",), constraint=constraint, variance=1 / (3 * hashed.in_features))]
        )
