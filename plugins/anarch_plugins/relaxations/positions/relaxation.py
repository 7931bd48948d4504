"""A number of its own for every pair of positions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.network import copied
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site
from anarch_plugins.relaxations.positions.tables import BiasIndex, BiasTable, DiagonalMatrix, Table, table_of


class PairBiasLayer(ConstrainedLayer):
    """Attention with a bias for every pair of positions: its index counts the rows of its table."""

    def constrained_buffers(self) -> Mapping[str, torch.Tensor]:
        """All but the index, which is of offsets where the module is constrained."""
        table = cast(Table, table_of(self.free))
        return {name: buffer for name, buffer in self.free.named_buffers() if name != table.index_name}

    def initialise(self, free: nn.Module) -> None:
        """As every module in it does by itself; a table that no module initialises is, as in Swin, normal with deviation 0.02."""
        table = cast(Table, table_of(free))
        pairs = table.index.clone()
        if callable(getattr(free, "reset_parameters", None)):
            super().initialise(free)
            table.index.copy_(pairs)  # timm's make it anew
            return
        nn.init.trunc_normal_(table.values, std=0.02)
        free.register_parameter(table.name, None)
        try:
            super().initialise(free)
        finally:
            free.register_parameter(table.name, table.values)


class PositionsRelaxation(AbstractConstraintRelaxation):
    """Relative position bias -> a bias per pair; Toeplitz and circulant linear layers -> dense."""

    name = "positions"
    targets: ClassVar[Any] = (BiasTable, BiasIndex, DiagonalMatrix)

    def idle(self, site: Site) -> str | None:
        table = table_of(site.module)
        if table is not None:
            return "every pair of positions has a number of its own" if (table.incidence.counts <= 1).all() else None
        names = ("relative_position_bias_table", "relative_position_index", "weight_index")
        held = [name for name in names if getattr(site.module, name, None) is not None]
        return None if held else "it has no relative position bias"

    def refusal(self, site: Site) -> str | None:
        table = table_of(site.module)
        if table is None and isinstance(site.module, DiagonalMatrix):
            return "its weight, which is looked up by weight_index, is no parameter"
        if table is None and getattr(site.module, "relative_position_bias_table", None) is None:
            return "its relative position bias is no parameter: it is computed anew, by a network as in Swin V2"
        if table is None:
            return "it has a relative_position_bias_table and no buffer relative_position_index that says where it is looked up"
        if table.index.is_floating_point() or table.index.is_complex() or table.index.dtype == torch.bool:
            return f"its {table.index_name} is {str(table.index.dtype).removeprefix('torch.')}, expected whole numbers"
        if table.is_matrix and (table.values.ndim, table.index.ndim) != (1, 2):
            return f"its weight has {table.values.ndim} axes and its weight_index {table.index.ndim}, expected one and two"
        return super().refusal(site)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        table = cast(Table, table_of(module))
        return _dense(module, table) if table.is_matrix else _per_pair(module, table)


def _dense(module: nn.Module, table: Table) -> Loosened:
    """W[i, j] = weight[weight_index[i, j]]."""
    outputs, inputs = table.index.shape
    bias = getattr(module, "bias", None)
    kind = {"device": table.values.device, "dtype": table.values.dtype}
    free: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None, **kind)  # type: ignore[no-untyped-call]
    if bias is not None:
        free.bias = copy.deepcopy(bias)
    constraint = Constraint((outputs, inputs), table.values.shape, [table.incidence])
    return Loosened(free=free, links=[Link(parent=table.name, constraint=constraint, variance=1 / (3 * inputs))])


def _per_pair(module: nn.Module, table: Table) -> Loosened:
    """B[pair, head] = table[index[pair], head], and an index that counts the pairs."""
    pairs, (labels, *heads) = table.index.numel(), table.values.shape
    free = copied(module)
    free.register_parameter(table.name, nn.Parameter(table.values.new_empty((pairs, *heads)), requires_grad=table.values.requires_grad))
    fits = pairs <= torch.iinfo(table.index.dtype).max
    count = torch.arange(pairs, device=table.index.device).view(table.index.shape)
    setattr(free, table.index_name, count.to(table.index.dtype) if fits else count)
    constraint = Constraint((pairs, *heads), (labels, *heads), [table.incidence, Incidence.identity(table.values[0].numel())])
    return Loosened(free=free, links=[Link(parent=table.name, constraint=constraint)], layer_class=PairBiasLayer)
