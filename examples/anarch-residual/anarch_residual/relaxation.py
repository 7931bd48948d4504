"""Trained convolutions with a dense residual beside them."""

from __future__ import annotations

from typing import cast

import torch

from anarch_core.lattice import EFCN, ConvGeometry, Convolution
from anarch_core.layers import FullyConnectedLayer, RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation, Cost, Site, TensorRole, is_convolution, transport_state
from anarch_residual.layer import ResidualLayer


class ResidualRelaxation(AbstractRelaxation):
    """conv -> residual: A is the convolution, B is zero. B's gradient is the eFCN's, so this is no saddle."""

    def refusal(self, site: Site) -> str | None:
        if is_convolution(site.module):
            return None
        return f"it is a {type(site.module).__name__}, and residual is made from a convolution; project it first"

    def cost(self, site: Site) -> Cost:
        weight = cast(Convolution, site.module).weight
        dense = FullyConnectedLayer.cost(EFCN, _geometry(site), weight.element_size())
        own = sum(parameter.numel() for parameter in site.module.parameters())
        products = weight.numel() * _geometry(site).positions
        return Cost(parameters=dense.parameters + own, flops=dense.flops + 2 * products, itemsize=dense.itemsize)

    @torch.no_grad()
    def lift(self, site: Site) -> RelaxedLayer:
        conv = cast(Convolution, site.module)
        layer = ResidualLayer(_geometry(site), conv.weight)
        for name, parameter in conv.named_parameters():
            layer.shared.get_parameter(name).copy_(parameter).requires_grad_(parameter.requires_grad)
            layer.residual.get_parameter(name).requires_grad_(parameter.requires_grad)
        return layer.train(conv.training)

    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        # A gets the gradients that the convolution got, and B those that an eFCN in its place would have got. The weights are A's alone.
        residual = cast(ResidualLayer, layer).residual
        if role == "weight":
            dense = {name: torch.zeros_like(residual.get_parameter(name), requires_grad=False)}
        else:
            dense = transport_state(site.module, residual, name, tensor, role) or {}
        return {f"shared.{name}": tensor.clone(), **{f"residual.{heir}": state for heir, state in dense.items()}}


def _geometry(site: Site) -> ConvGeometry:
    return ConvGeometry.of(cast(Convolution, site.module), site.input_shape[1:])
